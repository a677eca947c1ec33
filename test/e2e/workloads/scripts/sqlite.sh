#!/bin/bash
# Journals of both kinds, two writers, and a check of what came of it.
set -e
for mode in delete wal; do
	db=/data/$mode.db
	sqlite3 "$db" "pragma journal_mode=$mode; create table t (id integer primary key, v text);"
	for writer in 1 2; do
		(for i in 1 2 3 4 5; do
			sqlite3 "$db" ".timeout 20000" "begin immediate; insert into t(v) select hex($writer * $i) from generate_series(1, 200); commit;"
		done) &
	done
	wait
	sqlite3 "$db" "pragma integrity_check; select count(*), count(distinct v) from t; vacuum; select count(*) from t;"
done
