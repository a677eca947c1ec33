#!/bin/bash
# shellcheck disable=SC2094 # what is read is compared
# A login on a terminal of its own, and files both ways.
set -e
mkdir -p /run/sshd ~/.ssh && chmod 700 ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
/usr/sbin/sshd -p 2222 -o ListenAddress=127.0.0.1 -o PidFile=/tmp/sshd.pid -E /tmp/sshd.log
o=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)
ssh -p 2222 "${o[@]}" root@127.0.0.1 'echo hello; whoami; exit 7' || echo "status $?"
ssh -tt -p 2222 "${o[@]}" root@127.0.0.1 'test -t 0 && echo terminal; stty size; tty | sed "s/[0-9]*$//"' </dev/null | tr -d '\r'
head -c 100000 /dev/urandom >/data/r
scp -q -P 2222 "${o[@]}" /data/r root@127.0.0.1:/root/r && cmp /data/r /root/r && echo same
echo 'get /root/r /tmp/r' | sftp -q -b - -P 2222 "${o[@]}" root@127.0.0.1 >/dev/null && cmp /data/r /tmp/r && echo same
ssh -p 2222 "${o[@]}" root@127.0.0.1 'cat' </data/r | cmp - /data/r && echo same
kill "$(cat /tmp/sshd.pid)"
