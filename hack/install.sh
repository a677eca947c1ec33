#!/bin/sh
# Installs what was built. A configuration that is there already stays; the new
# one is put beside it.
#
# usage: hack/install.sh BUILD-DIR DESTDIR PREFIX [KERNEL]
#   KERNEL  the guest's, as of hack/guest.sh: its image is built anew if it has another
set -eu

build=${1:?usage: hack/install.sh BUILD-DIR DESTDIR PREFIX}
dest=$2
prefix=${3:?usage: hack/install.sh BUILD-DIR DESTDIR PREFIX [KERNEL]}
case $prefix in
/*) ;;
*)
	echo "install: PREFIX must be an absolute path, not $prefix" >&2
	exit 1
	;;
esac

for part in bin/containerd-shim-ccv2 bin/ccv2 bin/ccv2-agent guest/vmlinux guest/initrd.img; do
	[ -e "$build/$part" ] || {
		echo "install: $build/$part is missing; run make build guest first" >&2
		exit 1
	}
done
[ -z "${4:-}" ] || "$(dirname "$0")/guest.sh" "$build" "$4"

bin=$dest$prefix/bin share=$dest$prefix/share/ccv2 etc=$dest/etc/ccv2
install -d "$bin" "$share" "$etc"
install -m 755 "$build/bin/containerd-shim-ccv2" "$build/bin/ccv2" "$build/bin/ccv2-agent" "$bin/"
"$build/bin/ccv2" man "$dest$prefix/share/man/man1" >/dev/null
# The runtime io.containerd.cc.v2 is looked for under this name.
ln -sf containerd-shim-ccv2 "$bin/containerd-shim-cc-v2"
install -m 644 "$build/guest/vmlinux" "$build/guest/initrd.img" "$build/guest/manifest.json" "$share/"

# The file names the image where it was installed, and the file server: the one that
# was built, or the host's.
if [ -e "$build/virtiofsd/virtiofsd" ]; then
	virtiofsd=$prefix/libexec/ccv2/virtiofsd
	install -d "$dest${virtiofsd%/*}"
	install -m 755 "$build/virtiofsd/virtiofsd" "$dest$virtiofsd"
else
	virtiofsd=/usr/lib/qemu/virtiofsd
	for path in /usr/libexec/virtiofsd /usr/libexec/qemu/virtiofsd; do
		[ -x "$virtiofsd" ] || [ ! -x "$path" ] || virtiofsd=$path
	done
	echo "install: $build/virtiofsd/virtiofsd was not built; the configuration names the host's $virtiofsd"
fi
config=$(mktemp)
trap 'rm -f "$config"' EXIT
sed -e "s|/usr/share/ccv2/|$prefix/share/ccv2/|" -e "s|^virtiofsd = .*|virtiofsd = \"$virtiofsd\"|" config/config.toml >"$config"
if [ ! -e "$etc/config.toml" ]; then
	install -m 644 "$config" "$etc/config.toml"
	rm -f "$etc/config.toml.new"
elif ! cmp -s "$config" "$etc/config.toml"; then
	install -m 644 "$config" "$etc/config.toml.new"
	echo "install: kept $etc/config.toml; compare it with $etc/config.toml.new"
fi
echo "installed in $dest$prefix; check this host with $prefix/bin/ccv2 check"
