#!/bin/sh
# Makes a root file system of Debian: with the programs that the tests of workloads
# run in a container, or with other packages. Needs root and what `hack/deps.sh host` installs.
#
# usage: hack/debian.sh OUTPUT-DIR [PACKAGE,… [RELEASE]]     (in the Makefile build/debian); the root is below it
set -eu

dir=${1:?usage: hack/debian.sh OUTPUT-DIR [PACKAGE,… [RELEASE]]}
out=$dir/root
release=${3:-bookworm}
packages=${2:-acl,apt,attr,ca-certificates,e2fsprogs,fio,gcc,git,iproute2,iptables,libc6-dev,libcap2-bin,make,nginx-light,openssh-client,openssh-server,postgresql,procps,python3,redis-server,rsync,sqlite3,tmux}

[ "$(id -u)" = 0 ] || {
	echo "debian: needs root: debootstrap makes device nodes" >&2
	exit 1
}
if [ "$packages" = "$(cat "$out.packages" 2>/dev/null)" ]; then
	exit 0
fi
# shellcheck disable=SC2016 # a format of apt
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep debian | grep -v security | head -n 1)
rm -rf "$out" "$out.part" "$out.packages"
mkdir -p "$dir"
echo 'module debian // its packages have Go files, which are none of ours' >"$dir/go.mod"
if ! debootstrap --variant=minbase --include="$packages" "$release" "$out.part" "$mirror" >"$out.log" 2>&1; then
	tail -n 20 "$out.log" >&2
	echo "debian: debootstrap failed; all it said is in $out.log" >&2
	exit 1
fi
rm -rf "$out.part"/var/cache/apt/archives/*.deb "$out.part"/var/lib/apt/lists/*
mv "$out.part" "$out"
printf '%s\n' "$packages" >"$out.packages"
