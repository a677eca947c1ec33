#!/bin/bash
# shellcheck disable=SC2016 # for the shell in the terminal
# Terminals within a terminal, that outlive their client.
set -e
export TERM=xterm
tmux -f /dev/null new-session -d -s s -x 100 -y 30 sh
tmux send-keys -t s 'stty size; echo $((6*7)) >/tmp/done' Enter
until [ -s /tmp/done ]; do :; done
tmux capture-pane -p -t s | grep -c '^30 100' || tmux capture-pane -p -t s
cat /tmp/done
tmux split-window -t s sh && tmux list-panes -t s | wc -l
tmux kill-server
