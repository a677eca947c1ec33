#!/bin/sh
# Builds a static busybox with everything in it from Debian's source package,
# for the images of test suites: Debian's own binaries lack applets (inotifyd, pgrep, ipcs)
# and find their applets without looking for a file. Does nothing when it is
# there. Needs what building crun needs, and the network that apt uses.
#
# usage: hack/build-busybox.sh [OUTPUT-DIR]     (default build/suites/busybox)
set -eu
# shellcheck source=hack/debsource.sh
. "$(dirname "$0")/debsource.sh"

out=${1:-build/suites/busybox}
! "$out/busybox" --list 2>/dev/null | grep -qx inotifyd || exit 0
for tool in gcc make bzip2 apt-get; do
	command -v "$tool" >/dev/null || { echo "build-busybox: $tool is missing" >&2; exit 1; }
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work/src"

debian_archives "$work/apt"
(cd "$work/src" && apt source --download-only busybox)
cd "$work/src"
tar xf busybox_*.orig.tar.bz2
cd busybox-*/
{
	make defconfig
	# tc does not build with the headers of newer kernels.
	sed -i 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/; s/^CONFIG_TC=y/# CONFIG_TC is not set/
		s/^# CONFIG_INOTIFYD is not set/CONFIG_INOTIFYD=y/' .config
	make -j"$(nproc)" busybox
} </dev/null >>"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
cp busybox "$out/busybox"
rm -rf "$work"
