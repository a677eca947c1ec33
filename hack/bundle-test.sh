#!/bin/bash
# Tries the bundle of `make dist` as an operator would, on a host that has nothing of
# ours: unpack, install, run, check, upgrade under a running container, uninstall; then
# the host's files must be what they were. The host is a directory in namespaces of its
# own, with the kernel of this machine and a containerd and busybox that need no library.
#
# usage: hack/bundle-test.sh BUILD-DIR [ROOT]
#   ROOT  a root file system, which is left alone; default one with nothing in it but
#         busybox
set -euo pipefail

if [ "${1:-}" = --inside ]; then # process 1 of the namespaces
	shift
	root=$1
	mount --bind "$root" "$root"
	mkdir -p "$root"/{proc,sys,dev,run,tmp,.old,var/lib/containerd}
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
	mount -t tmpfs tmpfs "$root/tmp"
	mount -t tmpfs tmpfs "$root/var/lib/containerd" # an overlay has no other below it
	cd "$root"
	pivot_root . .old
	exec /test/busybox sh /test/inside.sh
fi

build=$(cd "${1:?usage: hack/bundle-test.sh BUILD-DIR [ROOT]}" && pwd)
base=${2:-}
[ "$(id -u)" = 0 ] || {
	echo "bundle-test: needs root" >&2
	exit 1
}
bundle=$(find "$build/dist" -name 'ccv2-*.tar.zst' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
[ -n "$bundle" ] || {
	echo "bundle-test: no bundle in $build/dist; run make dist" >&2
	exit 1
}
dir=$(mktemp -d "${TMPDIR:-/tmp}/ccv2-bundle-XXXXXX")
trap 'umount "$dir/root" 2>/dev/null || true; rm -rf "$dir"' EXIT
mkdir -p "$dir"/{root,upper,work,lower/etc/containerd}
if [ -n "$base" ]; then
	lower=$dir/lower:$base
else
	lower=$dir/lower
	mkdir -p "$dir/lower"/{bin,usr/local/bin,var/lib,root}
	for name in sh cat ls mount umount ip modprobe; do ln -s /test/busybox "$dir/lower/bin/$name"; done
fi
printf 'version = 2\n# of the host' >"$dir/lower/etc/containerd/config.toml"
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
mkdir -p "$dir/root"/{test,etc/cni/net.d,opt/containerd/bin,opt/containerd/lib,var/run/nri} # containerd makes these
cp "$build/busybox/bin/busybox" "$build/bin/containerd" "$build/bin/ctr" "$build/busybox.tar" "$dir/root/test/"
zstd -qdc --long=27 "$bundle" | tar -C "$dir/root/test" -xf -
mv "$dir/root/test"/ccv2-*-linux-amd64 "$dir/root/test/bundle"
# Another version of the same, to upgrade to.
cp -a "$dir/root/test/bundle" "$dir/root/test/next"
echo next >"$dir/root/test/next/VERSION"
sed -i "s|^[0-9a-f]*  VERSION\$|$(printf 'next\n' | sha256sum | cut -d' ' -f1)  VERSION|" "$dir/root/test/next/SHA256SUMS"

cat >"$dir/root/test/inside.sh" <<'END'
set -eu
export PATH=/usr/local/bin:/test:/bin:/sbin:/usr/bin:/usr/sbin
b=/test/busybox
$b umount -l /.old
$b rmdir /.old
fail() { echo "bundle-test: $*"; $b cat /tmp/containerd.log 2>/dev/null | $b tail -n 20; exit 1; }
# All files but those of the test, of kernels, and what containerd keeps.
host() { $b find / -xdev \( -path /test -o -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/lib/containerd \) -prune -o \( -type f -exec $b sha256sum {} + \) -o -type l -exec $b sh -c 'for l; do echo "$l -> $(/test/busybox readlink "$l")"; done' sh {} + -o -type d -print | $b sort; }
ctr() { /test/ctr -a /run/containerd/containerd.sock "$@"; }
run() { ctr run --rm --runtime io.containerd.cc.v2 "$@"; }
daemon() {
	/test/containerd --config /etc/containerd/config.toml >>/tmp/containerd.log 2>&1 &
	pid=$!
	i=0
	until ctr version >/dev/null 2>&1; do i=$((i + 1)); [ $i -lt 600 ] || fail "containerd does not answer"; $b usleep 50000; done
}
host >/tmp/before
/test/bundle/bin/ccv2 install -dry-run >/tmp/dry
host >/tmp/now && $b cmp -s /tmp/before /tmp/now || fail "a dry run changes files"
$b grep -q '^+.*runtimes.ccv2' /tmp/dry || fail "a dry run does not show the runtime"
# On a disk that is too small, and again when there is room.
$b mkdir /run/small
mount -t tmpfs -o size=60m tmpfs /run/small
/test/bundle/bin/ccv2 install -no-probe -prefix /run/small/ccv2 >/tmp/full 2>&1 && fail "installed where there is no room" || true
$b grep -q 'copy the bundle to /run/small/ccv2/.*no space left on device; run it again' /tmp/full || fail "no room: $($b cat /tmp/full)"
mount -o remount,size=400m /run/small
/test/bundle/bin/ccv2 install -no-probe -prefix /run/small/ccv2 >/dev/null
[ "$($b readlink /usr/local/bin/ccv2)" = /run/small/ccv2/current/bin/ccv2 ] || fail "not installed when there is room"
ccv2 uninstall -prefix /run/small/ccv2 >/dev/null
[ -z "$(ls -A /run/small)" ] || fail "left where there was no room: $(ls -A /run/small)"
umount /run/small
host >/tmp/now && $b cmp -s /tmp/before /tmp/now || fail "the host is not what it was after a full disk"
# Killed in the middle, and run again.
/test/bundle/bin/ccv2 install -no-probe >/dev/null &
$b usleep 30000
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
/test/bundle/bin/ccv2 install
daemon
ctr images import /test/busybox.tar >/dev/null
image=$(ctr images ls -q | $b head -n 1)
[ "$(run "$image" one sh -c 'echo in a VM')" = 'in a VM' ] || fail "nothing runs"
ccv2 check >/tmp/check 2>&1 || { $b cat /tmp/check; fail "ccv2 check"; }
$b grep -q '^FAIL' /tmp/check && fail "ccv2 check finds a fault" || true
ctr run -d --runtime io.containerd.cc.v2 "$image" old sleep 1000
/test/next/bin/ccv2 upgrade -no-probe >/tmp/upgrade
$b grep -q 'processes of running pods' /tmp/upgrade || fail "the version of a running pod is removed"
[ "$(ctr tasks exec --exec-id e old echo goes on)" = 'goes on' ] || fail "an upgrade ends a pod"
[ "$(run "$image" two cat /proc/sys/kernel/ostype)" = Linux ] || fail "nothing runs after an upgrade"
ccv2 uninstall >/tmp/refused 2>&1 && fail "an uninstall under a running pod" || true
$b grep -q 'end these pods first' /tmp/refused || fail "an uninstall under a running pod: $($b cat /tmp/refused)"
ctr tasks kill -s KILL old
until ctr tasks ls | $b grep -q STOPPED; do $b usleep 50000; done
ctr tasks rm old >/dev/null 2>&1 || true
ctr containers rm old
ccv2 uninstall
kill $pid
wait $pid || true
host >/tmp/after
$b diff /tmp/before /tmp/after || fail "the host is not what it was"
echo "bundle-test: passed"
END
unshare --mount --pid --ipc --net --fork --kill-child --propagation private -- "$0" --inside "$dir/root"

# The image: what is in it installs on a host that is mounted in it.
mkdir -p "$dir"/{oci,image,host/etc/containerd}
printf "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n" >"$dir/host/etc/containerd/config.toml"
before=$(find "$dir/host" | sort)
tar -C "$dir/oci" -xf "${bundle%.tar.zst}.oci.tar"
layer=$(find "$dir/oci/blobs" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
tar -C "$dir/image" -xzf "$layer"
mkdir -p "$dir/image"/{host,proc}
# shellcheck disable=SC2016 # for the shell in the namespace
unshare --mount --propagation private sh -euc 'cd "$1"; mount -t proc proc image/proc; mount --bind host image/host
	chroot image /ccv2/bin/ccv2 install -root /host >/dev/null
	grep -q runtimes.ccv2 host/etc/containerd/conf.d/ccv2.toml
	test -x host/opt/ccv2/current/bin/containerd-shim-ccv2
	chroot image /ccv2/bin/ccv2 uninstall -root /host >/dev/null' sh "$dir"
[ "$before" = "$(find "$dir/host" | sort)" ] || {
	echo "bundle-test: the image leaves something on the host" >&2
	exit 1
}
echo "bundle-test: the image passed"
