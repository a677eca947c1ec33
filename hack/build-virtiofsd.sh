#!/bin/sh
# Builds the file server, the virtiofsd in Rust, from its crate with the
# dependencies that it was released with and one option more, which
# the patches virtiofsd-*.patch explain. Needs what `hack/deps.sh virtiofsd` installs
# and the network that cargo uses; changes nothing outside of the output directory and
# cargo's cache.
#
# usage: hack/build-virtiofsd.sh [OUTPUT-DIR]     (default build/virtiofsd)
set -eu

version=1.14.0
hack=$(cd "$(dirname "$0")" && pwd)
out=${1:-build/virtiofsd}
for tool in cargo gcc patch strip; do
	command -v "$tool" >/dev/null || { echo "build-virtiofsd: $tool is missing" >&2; exit 1; }
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work"

# Messages name sources: not by where they are here, so that the same source is the same
# program. The character between the flags may be in no path.
crates=${CARGO_HOME:-$HOME/.cargo}
CARGO_ENCODED_RUSTFLAGS=$(printf -- '--remap-path-prefix=%s=/virtiofsd\037--remap-path-prefix=%s=/cargo' "$work/virtiofsd" "$crates")
export CARGO_ENCODED_RUSTFLAGS

# Of a package that needs the crate, cargo gets its source.
build() {
	mkdir "$work/src"
	: >"$work/src/lib.rs"
	printf '[package]\nname = "source"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nvirtiofsd = "=%s"\n' "$version" >"$work/Cargo.toml"
	cargo vendor --quiet --manifest-path "$work/Cargo.toml" "$work/vendor" >"$work/vendor.toml" &&
		mv "$work/vendor/virtiofsd" "$work/virtiofsd" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-own-mounts.patch" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-keep-cache.patch" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-own-files.patch" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-tmpfile.patch" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-flags.patch" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-unopened.patch" &&
		patch -d "$work/virtiofsd" -p1 -s <"$hack/virtiofsd-whole-directories.patch" &&
		rm -r "$work/Cargo.toml" "$work/vendor" && # cargo would take the package's for the root of a workspace
		cargo build --quiet --release --locked --manifest-path "$work/virtiofsd/Cargo.toml" --target-dir "$work/target"
}
build >"$work/build.log" 2>&1 || {
	tail -n 30 "$work/build.log" >&2
	exit 1
}
strip "$work/target/release/virtiofsd"
install -m 755 "$work/target/release/virtiofsd" "$out/virtiofsd"
rm -rf "$work"
"$out/virtiofsd" --version
