#!/bin/bash
# A cluster on a volume, killed in the middle, and what its recovery finds.
set -e
bin=$(dirname /usr/lib/postgresql/*/bin/postgres)
mkdir /data/pg && chown postgres /data/pg
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
start() {
	as "$bin/pg_ctl" -D /data/pg -l /tmp/pg.log -o '-c listen_addresses= -c unix_socket_directories=/tmp -c shared_buffers=16MB' -w -t 300 start >/dev/null
}
sql() { as psql -h /tmp -At -d postgres -c "$1"; }
as "$bin/initdb" -D /data/pg --no-sync -A trust >/dev/null
start
sql "create table t (id serial primary key, v text)"
sql "insert into t (v) select md5(i::text) from generate_series(1, 20000) i"
sql "create index on t (v)"
kill -9 "$(head -n 1 /data/pg/postmaster.pid)"
while pgrep -x postgres >/dev/null; do :; done
start
grep -c 'database system was not properly shut down' /tmp/pg.log
sql "select count(*), min(v), max(v) from t"
sql "set enable_seqscan=off; select count(*) from t where v like 'abc%'"
as "$bin/pg_ctl" -D /data/pg -w stop -m fast >/dev/null
find /data/pg -mindepth 1 -maxdepth 1 -printf "%f\n" | sort | head -n 5
stat -c '%U %a' /data/pg
