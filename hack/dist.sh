#!/bin/sh
# Makes the bundle of what was built: build/dist/ccv2-VERSION-linux-amd64.tar.zst, its
# checksum, and the same as an OCI image, …oci.tar. The time of all files is that of the commit, so that two of them are
# the same.
#
# usage: hack/dist.sh BUILD-DIR VERSION
set -eu

build=${1:?usage: hack/dist.sh BUILD-DIR VERSION}
version=${2:?usage: hack/dist.sh BUILD-DIR VERSION}
seconds=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
archive=$(go run -buildvcs=false ./hack/dist -build "$build" -version "$version" -time "$seconds" -out "$build/dist")
# One thread: the bytes depend on their number.
zstd -q -19 --long=27 -T1 -f --rm "$archive"
cd "$(dirname "$archive")"
name=$(basename "$archive").zst
sha256sum "$name" "${name%.tar.zst}.oci.tar" >"$name.sha256"
ls -l "$name" "${name%.tar.zst}.oci.tar"
