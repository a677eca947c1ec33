#!/bin/sh
# Builds the file server, the virtiofsd in Rust, from its crate with the
# dependencies that it was released with. Needs what `hack/deps.sh virtiofsd`
# installs and the network that cargo uses; changes nothing outside of the output
# directory and cargo's cache.
#
# usage: hack/build-virtiofsd.sh [OUTPUT-DIR]     (default build/virtiofsd)
set -eu

version=1.14.0
out=${1:-build/virtiofsd}
for tool in cargo gcc strip; do
	command -v "$tool" >/dev/null || { echo "build-virtiofsd: $tool is missing" >&2; exit 1; }
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work"

cargo install --quiet --locked --version "=$version" --root "$work" --target-dir "$work/target" virtiofsd >"$work/build.log" 2>&1 || {
	tail -n 30 "$work/build.log" >&2
	exit 1
}
strip "$work/bin/virtiofsd"
install -m 755 "$work/bin/virtiofsd" "$out/virtiofsd"
rm -rf "$work"
"$out/virtiofsd" --version
