#!/bin/bash
# Makes the image of kind's nodes without a registry, as a file system for `docker
# import`: what kind's own images/base and `kind build node-image` do, of packages of
# Debian and of programs that the Makefile has built. Its name is the hash of all that
# it is made of. Needs root.
#
# usage: hack/kind-node.sh BUILD-DIR
#   writes BUILD-DIR/kind/node-HASH.tar, and that name to BUILD-DIR/kind/node
set -euo pipefail

build=$(cd "${1:?usage: hack/kind-node.sh BUILD-DIR}" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$build/kind
bin=$dir/bin
packages=bash,conntrack,containernetworking-plugins,curl,e2fsprogs,ethtool,hostname,iproute2,iptables,jq,kmod,libseccomp2,mount,netcat-openbsd,nftables,procps,socat,systemd,systemd-sysv,util-linux
kind=$(go -C "$here/tools/kind" list -m -f '{{.Dir}}' sigs.k8s.io/kind)
kubernetes=$(go -C "$here/tools/kubernetes" list -m -f '{{.Version}}' k8s.io/kubernetes)
source=$(go -C "$here/tools/kubernetes" list -m -f '{{.Dir}}' k8s.io/kubernetes)

parts=$({
	echo "$packages"
	cat "$0" "$here"/test/ociimage/*.go "$here"/test/ociimage/mkimage/*.go
	sha256sum "$bin"/* "$build"/bin/{containerd,ctr,containerd-shim-runc-v2} "$build/suites/busybox/busybox" | cut -d' ' -f1
} | sha256sum | cut -c1-12)
out=$dir/node-$parts.tar
if [ -e "$out" ]; then
	echo "    $out is up to date"
	exit 0
fi

work=$dir/work root=$dir/work/root images=$dir/work/images
mkdir -p "$work"
"$here/hack/debian.sh" "$dir/debian" "$packages"
rm -rf "$work"
mkdir -p "$root" "$images"
echo 'module kind // nothing in it is ours' >"$dir/go.mod"
cp -a "$dir/debian/root/." "$root"
rm -rf "$root"/usr/share/{doc,man,locale}

# images/base/Dockerfile of kind: no files of modes that a module has lost.
put() { install -D -m "$1" "$2" "$3"; }
base=$kind/images/base/files
for f in "$base"/usr/local/bin/*; do put 755 "$f" "$root/usr/local/bin/$(basename "$f")"; done
for f in "$base"/kind/bin/*; do put 755 "$f" "$root/kind/bin/$(basename "$f")"; done
(cd "$base/etc" && find . -type f) | while read -r f; do put 644 "$base/etc/$f" "$root/etc/$f"; done
systemd=$root/lib/systemd/system
rm -f "$systemd"/{multi-user,local-fs,basic}.target.wants/* "$systemd"/sockets.target.wants/*{udev,initctl}* \
	"$systemd/sysinit.target.wants/systemd-tmpfiles-setup.service"
find "$root/etc/systemd/system" -path '*.wants/*' -delete
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
chroot "$root" systemctl -q enable kubelet.service containerd.service undo-mount-hacks.service
chroot "$root" systemctl -q mask systemd-binfmt.service
mkdir -p "$root/etc/kubernetes/manifests" "$root/opt/cni/bin" "$root/kind/manifests"
cp "$root"/usr/lib/cni/{bridge,host-local,loopback,portmap,ptp} "$root/opt/cni/bin/"
cp "$build"/bin/{containerd,ctr,containerd-shim-runc-v2} "$root/usr/local/bin/"
put 755 "$bin/runc" "$root/usr/local/sbin/runc"
"$build/bin/ctr" oci spec | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
	>"$root/etc/containerd/cri-base.json"

# kind build node-image
cp "$bin"/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
printf %s "$kubernetes" >"$root/kind/version"
# The manifest is a constant of kind's, in quotes of Go, with the names of its images between.
constants=$kind/pkg/build/nodeimage/const_storage.go
constant() { sed -n "s/^const $1 = \"\(.*\)\"$/\1/p" "$constants"; }
provisioner=$(constant storageProvisionerImage) helper=$(constant storageHelperImage)
sed -e "1,/^const defaultStorageManifest = /d" -e "s|\` + storageProvisionerImage + \`|$provisioner|" \
	-e "s|\` + storageHelperImage + \`|$helper|" -e '/^`/d' "$constants" >"$root/kind/manifests/default-storage.yaml"

# image NAME REFERENCE [FLAG-OF-MKIMAGE...]: of the directory of that name.
(cd "$here" && go build -buildvcs=false -o "$work/mkimage" ./test/ociimage/mkimage)
list=
image() {
	local name=$1 reference=$2
	shift 2
	mkdir -p "$images/$name"/{etc,tmp}
	chmod 1777 "$images/$name/tmp"
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' | cat - "$images/$name.passwd" 2>/dev/null >"$images/$name/etc/passwd" || true
	printf 'root:x:0:\nnogroup:x:65534:\n' | cat - "$images/$name.group" 2>/dev/null >"$images/$name/etc/group" || true
	"$work/mkimage" -name "$reference" "$@" "$images/$name" "$images/$name.tar"
	list="$list $images/$name.tar"
}
# static NAME REFERENCE: the image of one program.
static() {
	put 755 "$bin/$1" "$images/$1/usr/local/bin/$1"
	image "$1" "$2" -entrypoint "/usr/local/bin/$1"
}
# applets NAME PROGRAM...: busybox, in the image of that name.
applets() {
	put 755 "$build/suites/busybox/busybox" "$images/$1/bin/busybox"
	for applet in $("$build/suites/busybox/busybox" --list); do
		[ "$applet" = busybox ] || ln -sf busybox "$images/$1/bin/$applet"
	done
}
# libraries NAME FILE...: what programs and modules of the root need, into the image.
libraries() {
	local name=$1
	shift
	chroot "$root" ldd "$@" | grep -oE '/[^ ]+\.so[^ :]*' | grep -v /xtables/ | sort -u |
		while read -r f; do put 755 "$(realpath -m "$root$f")" "$images/$name$f"; done
}
put 755 "$bin/kube-proxy" "$images/kube-proxy/usr/local/bin/kube-proxy"
lib=usr/lib/x86_64-linux-gnu
mkdir -p "$images/kube-proxy"/{run,usr/sbin,$lib}
cp -r "$root/$lib/xtables" "$images/kube-proxy/$lib/"
cp "$root"/usr/sbin/{xtables-nft-multi,nft,conntrack} "$images/kube-proxy/usr/sbin/"
cp "$root"/etc/{protocols,services} "$images/kube-proxy/etc/" 2>/dev/null || true # netbase's, if it is there
for name in ip{,6}tables{,-save,-restore}; do ln -s xtables-nft-multi "$images/kube-proxy/usr/sbin/$name"; done
modules=("$root/$lib"/xtables/*.so)
libraries kube-proxy /usr/sbin/{xtables-nft-multi,nft,conntrack} "${modules[@]#"$root"}"
image kube-proxy "registry.k8s.io/kube-proxy:$kubernetes" -entrypoint /usr/local/bin/kube-proxy
for name in kube-apiserver kube-controller-manager kube-scheduler; do static $name "registry.k8s.io/$name:$kubernetes"; done
for ref in $("$bin/kubeadm" config images list --kubernetes-version "$kubernetes" 2>/dev/null); do
	case $ref in
	*/etcd:*) static etcd "$ref" ;;
	*/coredns:*) static coredns "$ref" ;;
	esac
done
gcc -Os -Wall -static -o "$bin/pause.tmp" "$source/build/pause/linux/pause.c"
put 755 "$bin/pause.tmp" "$images/pause/pause"
rm "$bin/pause.tmp"
cp -r "$images/pause" "$images/pause-of-tests"
image pause-of-tests registry.k8s.io/pause:3.10.2 -entrypoint /pause
image pause "$(sed -n 's/^ *sandbox_image = "\(.*\)"$/\1/p' "$root/etc/containerd/config.toml")" -entrypoint /pause
put 755 "$bin/local-path-provisioner" "$images/local-path-provisioner/usr/local/bin/local-path-provisioner"
image local-path-provisioner "$provisioner"
applets local-path-helper
image local-path-helper "$helper"
static metrics-server registry.k8s.io/metrics-server/metrics-server:v0.9.0
applets busybox
image busybox docker.io/library/busybox:1.37
# What Kubernetes' own tests run: see test/utils/image/manifest.go of its source. The programs
# that agnhost has of Alpine Linux are busybox's and Debian's here.
tests=registry.k8s.io/e2e-test-images
applets agnhost
put 755 "$bin/agnhost" "$images/agnhost/agnhost"
for f in crt key; do put 644 "$source/test/images/agnhost/porter/localhost.$f" "$images/agnhost/localhost.$f"; done
mkdir -p "$images/agnhost"/{uploads,usr/local/bin}
ln -s agnhost "$images/agnhost/agnhost-2"
ln -s /agnhost "$images/agnhost/usr/local/bin/agnhost"
for f in bin/bash bin/nc.openbsd bin/ss bin/ip usr/bin/curl; do
	rm -f "$images/agnhost/bin/$(basename "$f" .openbsd)" # busybox
	put 755 "$root/$f" "$images/agnhost/bin/$(basename "$f" .openbsd)"
	libraries agnhost "/$f"
done
# Its registry has one image, pause, as fakeregistryserver/prepare_registry.sh lays it out.
registry=$images/agnhost/var/registry/pause
mkdir -p "$work/pause" "$registry"/{blobs,manifests}
tar -C "$work/pause" -xf "$images/pause-of-tests.tar"
for f in "$work"/pause/blobs/sha256/*; do
	hash=$(basename "$f")
	for kind in blobs manifests; do put 644 "$f" "$registry/$kind/sha256/${hash:0:2}/$hash/data"; done
done
jq -r '.manifests[0].digest' "$work/pause/index.json" >"$registry/manifests/testing"
echo 'user-defined-in-image:x:1000:1000::/:/bin/sh' >"$images/agnhost.passwd"
printf 'user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n' >"$images/agnhost.group"
image agnhost "$tests/agnhost:2.63.0" -entrypoint /agnhost -cmd pause
for ref in busybox:1.37.0-1 nginx:1.15-4 nginx:1.27-0; do
	applets "$ref"
	image "$ref" "$tests/$ref"
done
applets glibc-dns-testing
rm "$images/glibc-dns-testing/bin/hostname"
put 755 "$root/bin/hostname" "$images/glibc-dns-testing/bin/hostname"
libraries glibc-dns-testing /bin/hostname
image glibc-dns-testing "$tests/glibc-dns-testing:2.0.0"
applets nonroot
image nonroot "$tests/nonroot:1.5" -user 1234
applets nonewprivs
put 6755 "$bin/nonewprivs" "$images/nonewprivs/usr/local/bin/nnp"
image nonewprivs "$tests/nonewprivs:1.4" -cmd nnp

# The images go into the node's containerd, not unpacked: nodes unpack what they run.
socket=$work/containerd.sock
cat >"$work/import.toml" <<END
version = 3
root = "$root/var/lib/containerd"
state = "$work/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "$socket"
END
"$build/bin/containerd" --config "$work/import.toml" >"$work/import.log" 2>&1 &
daemon=$!
trap 'kill $daemon 2>/dev/null || true' EXIT
until "$build/bin/ctr" -a "$socket" version >/dev/null 2>&1; do
	kill -0 $daemon || {
		cat "$work/import.log" >&2
		exit 1
	}
	sleep 0.1
done
for f in $list; do "$build/bin/ctr" -a "$socket" -n k8s.io images import --local --no-unpack "$f"; done >"$work/ctr.log" 2>&1 || { cat "$work/ctr.log" >&2; exit 1; }
"$build/bin/ctr" -a "$socket" -n k8s.io images ls -q 2>/dev/null | sed "s/^/    /"
kill $daemon
wait $daemon || true

rm -f "$dir"/node-*.tar
tar -C "$root" --numeric-owner -cf "$out.part" .
mv "$out.part" "$out"
echo "node-$parts" >"$dir/node"
rm -rf "$work"
