#!/bin/sh
# Builds pjdfstest, a test of what a file system owes its programs, from its crate
# with the dependencies that it was released with. Needs what `hack/deps.sh
# virtiofsd` installs and the network that cargo uses; changes nothing outside of
# the output directory and cargo's cache.
#
# usage: hack/build-pjdfstest.sh [OUTPUT-DIR]     (default build/pjdfstest)
set -eu

version=0.2.2
out=${1:-build/pjdfstest}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work"
cargo install --quiet --locked --version "=$version" --root "$work" --target-dir "$work/target" pjdfstest >"$work/build.log" 2>&1 || {
	tail -n 30 "$work/build.log" >&2
	exit 1
}
install -m 755 "$work/bin/pjdfstest" "$out/pjdfstest"
rm -rf "$work"
