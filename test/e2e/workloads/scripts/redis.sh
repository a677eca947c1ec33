#!/bin/bash
# A server that forks to save, and starts again from what it has saved.
set -e
start() { redis-server --port 0 --unixsocket /tmp/redis.sock --dir /data --appendonly yes --save '' --daemonize yes --logfile /tmp/redis.log >/dev/null; until cli ping >/dev/null 2>&1; do :; done; }
cli() { redis-cli -s /tmp/redis.sock "$@"; }
start
for i in $(seq 200); do echo "set key$i value$i"; done | cli | sort | uniq -c
cli bgsave >/dev/null
until [ "$(cli info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" = 0 ]; do :; done
cli info persistence | tr -d '\r' | grep rdb_last_bgsave_status
kill -9 "$(pgrep -x redis-server)"
while pgrep -x redis-server >/dev/null; do :; done
start
cli dbsize
cli get key77
cli shutdown nosave || true
