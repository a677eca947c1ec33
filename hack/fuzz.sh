#!/bin/sh
# Runs every fuzz target for a while. Crashers are written below the package's
# testdata/fuzz, to be committed with the fix.
#
# usage: hack/fuzz.sh TIME
set -eu

time=${1:?usage: hack/fuzz.sh TIME, such as 50000x or 3s}
targets=$(git grep -n --untracked -o -E '^func Fuzz[A-Za-z0-9_]+\(' -- '*_test.go' | sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz[^(]*)\($|\1 \2|')
[ -n "$targets" ] || {
	echo "fuzz: there is no target" >&2
	exit 1
}
echo "$targets" | while read -r dir target; do
	echo "    $dir $target"
	n=$time
	case $dir:$time in
	pkg/shim/task:*000x) n=${time%0x}x ;; # each input is the life of a sandbox
	esac
	out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$n" -fuzzminimizetime 5x "./$dir" 2>&1) || {
		printf '%s\n' "$out"
		exit 1
	}
done
