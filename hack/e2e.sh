#!/bin/sh
# Runs the end-to-end tests on the binaries and the guest of a build directory.
#
# usage: hack/e2e.sh BUILD-DIR GO-TEST-FLAG...
set -eu

build=$(cd "${1:?usage: hack/e2e.sh BUILD-DIR FLAG...}" && pwd)
shift
[ "$(id -u)" = 0 ] || {
	echo "e2e: needs root: containerd mounts file systems" >&2
	exit 1
}
export CCV2_BIN="$build/bin" CCV2_GUEST="$build/guest" CCV2_IMAGE="$build/busybox.tar"
: "${CCV2_CONTAINERDS=$build/containerd-1.7}" # beside the newest, which all tests run on
export CCV2_CONTAINERDS
if [ -e test/e2e/go.mod ]; then
	exec go -C test/e2e test -tags e2e -count=1 -p 1 -timeout 45m "$@" ./...
fi
exec go test -tags e2e -count=1 -timeout 45m "$@" ./test/e2e/...
