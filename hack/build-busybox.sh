#!/bin/sh
# Builds a static busybox with everything in it from Debian's source package,
# for the images of test suites: Debian's own binaries lack applets (pgrep, ipcs)
# and find their applets without looking for a file. Does nothing when it is
# there. Needs what building crun needs, and the network that apt uses.
#
# usage: hack/build-busybox.sh [OUTPUT-DIR]     (default build/suites/busybox)
set -eu

out=${1:-build/suites/busybox}
[ ! -x "$out/busybox" ] || exit 0
for tool in gcc make bzip2 apt-get; do
	command -v "$tool" >/dev/null || { echo "build-busybox: $tool is missing" >&2; exit 1; }
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work/apt/lists/partial" "$work/apt/parts" "$work/src"

# Source packages from the same archives as the binary ones, through an apt
# state of our own.
for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
	case $f in
	*.sources) sed 's/^Types:.*/Types: deb-src/' "$f" >"$work/apt/parts/$(basename "$f")" ;;
	*.list) [ ! -f "$f" ] || sed -n 's/^deb \(.*debian\.org.*\)/deb-src \1/p' "$f" >"$work/apt/parts/$(basename "$f")" ;;
	esac
done
grep -L 'debian\.org\|debian-archive' "$work"/apt/parts/*.sources 2>/dev/null | while read -r other; do rm -f "$other"; done
apt() {
	apt-get -q -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$work/none" -o Dir::Etc::sourceparts="$work/apt/parts" \
		-o Dir::State::lists="$work/apt/lists" "$@" >>"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}
apt update
(cd "$work/src" && apt source --download-only busybox)
cd "$work/src"
tar xf busybox_*.orig.tar.bz2
cd busybox-*/
{
	make defconfig
	# tc does not build with the headers of newer kernels.
	sed -i 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/; s/^CONFIG_TC=y/# CONFIG_TC is not set/' .config
	make -j"$(nproc)" busybox
} </dev/null >>"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
cp busybox "$out/busybox"
rm -rf "$work"
