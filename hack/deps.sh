#!/bin/sh
# Gets from the distribution what ccv2 needs: programs are installed where they
# are missing; what only guests and containers use (kernel, crun, busybox) is
# downloaded and unpacked below the build directory.
# It does nothing, not even as an ordinary user, when all is there.
#
# usage: hack/deps.sh run|crun|virtiofsd|kernel|runc|kernel-9p|containerd|test|clients|host|dist|kind [BUILD-DIR]
#   run   to build and start guests
#   crun  to build the guest's crun from source (hack/build-crun.sh)
#   virtiofsd  to build the file server (hack/build-virtiofsd.sh)
#   kernel  to build the guest's own kernel (hack/build-kernel.sh)
#   runc  to build the runc that tests and figures compare with
#   containerd  to run tests on the distribution's own
#   kernel-9p  for a guest whose share is served by QEMU itself
#   test  to lint and to run all tests
#   clients  for nerdctl and Docker
#   dist  to make the bundle
#   host  to run tests on a host in a VM
#   kind  to make the nodes of a cluster, and an Engine to run them
set -eu

kind=${1:?usage: hack/deps.sh run|crun|virtiofsd|kernel|runc|kernel-9p|containerd|test|clients|host|dist|kind [BUILD-DIR]}
build=${2:-build}

say() { printf '    %s\n' "$*"; }
die() {
	printf 'deps: %s\n' "$*" >&2
	exit 1
}

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 ||
		{ cat "$log" >&2; die "apt-get $* failed (its output is above)"; }
}

# update_lists refreshes the package lists, once and only when something is needed.
updated=
update_lists() {
	[ -z "$updated" ] || return 0
	say "updating the package lists"
	apt update
	updated=yes
}

missing=
# need PACKAGE TEST...: notes the package when the test fails.
need() {
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}

have() { command -v "$1"; }
virtiofsd_is_there() { [ -x /usr/lib/qemu/virtiofsd ] || [ -x /usr/libexec/virtiofsd ] || [ -x /usr/libexec/qemu/virtiofsd ]; }
library() { ls /usr/lib/*/"$1"; }
header() { [ -e "$1" ] || ls /usr/include/*/"${1#/usr/include/}"; }

# virtiofsd is part of QEMU up to 7.2 and a package of its own afterwards.
virtiofsd_package() {
	if grep -q '^VERSION_ID="12"' /etc/os-release; then
		echo qemu-system-common
	else
		echo virtiofsd
	fi
}

# cargo_is_new: its file of locked versions has a format of its own.
cargo_is_new() {
	found=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\)\..*/\1 \2/p')
	[ -n "$found" ] && [ "${found% *}" -eq 1 ] && [ "${found#* }" -ge 78 ]
}

# Debian 12 has a newer one beside its own, for browsers.
cargo_package() {
	if grep -q '^VERSION_ID="12"' /etc/os-release; then
		echo cargo-web
	else
		echo cargo
	fi
}

install_missing() {
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || die "missing packages:$missing; run this as root, or install them"
	update_lists
	say "installing$missing"
	# shellcheck disable=SC2086 # a list of words
	apt install -y --no-install-recommends --no-remove $missing
	missing=
}

# unpack PACKAGE DIR downloads a package and unpacks it into a new directory.
unpack() {
	mkdir -p "$build/cache"
	say "downloading $1"
	(cd "$build/cache" && rm -f "$1"_*.deb && apt download "$1")
	rm -rf "$2" "$2.tmp"
	dpkg-deb -x "$build/cache/$1"_*.deb "$2.tmp"
	mv "$2.tmp" "$2"
}

# newest_kernel METAPACKAGE prints the package that it depends on.
newest_kernel() {
	apt-cache depends "$1" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

kernel() {
	for dir in "$build"/linux-image-*-amd64; do
		[ ! -d "$dir" ] || return 0
	done
	update_lists
	package=$(newest_kernel linux-image-cloud-amd64)
	[ -n "$package" ] || die "no kernel package found; is the distribution's main archive enabled?"
	unpack "$package" "$build/$package"
}

# The cloud kernel has no 9p.
kernel_9p() {
	[ ! -d "$build/kernel-9p" ] || return 0
	update_lists
	package=$(newest_kernel linux-image-amd64)
	[ -n "$package" ] || die "no kernel package found; is the distribution's main archive enabled?"
	unpack "$package" "$build/kernel-9p"
}

# containerd with its ctr, which the host need not have.
containerd() {
	[ ! -e "$build/containerd-debian/containerd" ] || return 0
	update_lists
	unpack containerd "$build/cache/containerd"
	mkdir -p "$build/containerd-debian"
	mv "$build/cache/containerd/usr/bin/ctr" "$build/cache/containerd/usr/bin/containerd" "$build/containerd-debian/"
	rm -rf "$build/cache/containerd"
}

# The shell of the demonstration's container; the package cannot be installed
# beside the one that the host may have. Where the distribution has merged bin and
# usr/bin the package has the second alone.
busybox() {
	[ ! -x "$build/busybox/bin/busybox" ] || return 0
	update_lists
	unpack busybox-static "$build/busybox"
	[ -e "$build/busybox/bin" ] || ln -s usr/bin "$build/busybox/bin"
}

command -v apt-get >/dev/null || die "this works with Debian's packages; elsewhere see the list in hack/deps.sh"
[ "$(dpkg --print-architecture)" = amd64 ] || die "guests are made for amd64, this is $(dpkg --print-architecture)"
mkdir -p "$build"
build=$(cd "$build" && pwd)
log=$build/apt.log

case $kind in
run)
	need qemu-system-x86 have qemu-system-x86_64
	need "$(virtiofsd_package)" virtiofsd_is_there
	need iproute2 have ip
	need util-linux have unshare
	need xz-utils have xz # the kernel's modules are compressed since Debian 13
	install_missing
	kernel
	busybox
	;;
crun)
	need gcc have gcc
	need libc6-dev header /usr/include/stdio.h
	need make have make
	need python3 python3 -c 'import json'
	need file have file
	need binutils have strip
	need pkg-config have pkg-config
	need patch have patch
	need xz-utils have xz
	need dpkg-dev have dpkg-source
	install_missing
	;;
virtiofsd)
	need gcc have gcc
	need libc6-dev header /usr/include/stdio.h
	need binutils have strip
	need patch have patch
	# The kernel has a header of the same name.
	need libseccomp-dev library libseccomp.so
	need libcap-ng-dev library libcap-ng.so
	need "$(cargo_package)" cargo_is_new
	install_missing
	;;
kernel)
	need gcc have gcc
	need libc6-dev header /usr/include/stdio.h
	need make have make
	need patch have patch
	need binutils have strip
	need bc have bc
	need bison have bison
	need flex have flex
	need perl have perl
	need xz-utils have xz
	need libelf-dev header /usr/include/libelf.h
	install_missing
	update_lists
	;;
dist)
	need zstd have zstd
	need git have git
	install_missing
	;;
runc)
	need gcc have gcc
	need libc6-dev header /usr/include/stdio.h
	need pkg-config have pkg-config
	need libseccomp-dev pkg-config --exists libseccomp
	install_missing
	;;
containerd)
	containerd
	;;
kernel-9p)
	need xz-utils have xz
	install_missing
	kernel_9p
	;;
test)
	need gcc have gcc
	need libc6-dev header /usr/include/stdio.h
	need shellcheck have shellcheck
	need cpio have cpio # reads the image that the builder writes
	need e2fsprogs have mkfs.ext4
	need procps have ps
	need iproute2 have tc
	need iptables have iptables # a test runs it in a guest
	need libcap2-bin have setcap # as does another
	need containernetworking-plugins [ -x /usr/lib/cni/bridge ]
	install_missing
	;;
clients)
	need iptables have iptables # published ports
	need containernetworking-plugins [ -x /usr/lib/cni/bridge ]
	need tini [ -x /usr/bin/tini-static ] # the init of --init
	need wget have wget
	install_missing
	;;
host)
	need debootstrap have debootstrap
	need e2fsprogs have mkfs.ext4
	install_missing
	;;
kind)
	need debootstrap have debootstrap
	need zstd have zstd # unpacks the bundle
	need jq have jq
	need iptables have iptables # the networks of the Engine
	need procps have pgrep
	install_missing
	;;
*) die "unknown kind $kind" ;;
esac
