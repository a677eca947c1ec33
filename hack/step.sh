#!/bin/sh
# Runs a command and says what it is for and how long it took.
#
# usage: hack/step.sh WHAT COMMAND [ARGUMENT...]
set -eu

what=$1
shift
printf '==> %s\n' "$what"
begin=$(date +%s%N)
status=0
"$@" || status=$?
took=$((($(date +%s%N) - begin) / 1000000))
how='done'
[ "$status" -eq 0 ] || how="failed with status $status"
printf '    %s in %d.%d s\n' "$how" $((took / 1000)) $((took % 1000 / 100))
exit "$status"
