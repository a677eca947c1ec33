#!/bin/sh
# Builds the guest's kernel and image, unless those that are there were made of
# the same parts.
#
# usage: hack/guest.sh BUILD-DIR [debian|source|9p]
#   source  with the kernel of hack/build-kernel.sh
#   9p      in guest-9p, with the kernel of hack/deps.sh kernel-9p
set -eu

build=${1:?usage: hack/guest.sh BUILD-DIR [debian|source|9p]}
runtime=$build/crun-static/crun
case ${2:-debian} in
debian) kernels="linux-image-*" out=$build/guest get='make deps' ;;
source) kernels=kernel-source out=$build/guest get='make guest KERNEL=source' ;;
9p) kernels=kernel-9p out=$build/guest-9p get='make guest-9p' ;;
*)
	echo "guest: unknown kind of guest: $2" >&2
	exit 1
	;;
esac
# The newest of the unpacked kernels.
kernel=$(find "$build" -path "$build/$kernels/boot/vmlinuz-*" | sort -V | tail -n 1)
[ -n "$kernel" ] || {
	echo "guest: no kernel below $build; run $get" >&2
	exit 1
}

parts=$(sha256sum "$build/bin/ccv2" "$build/bin/ccv2-agent" "$runtime" "$kernel")
if [ -e "$out/vmlinux" ] && [ -e "$out/initrd.img" ] && [ "$parts" = "$(cat "$out/.parts" 2>/dev/null)" ]; then
	echo "    $out is up to date"
	exit 0
fi
rm -f "$out/.parts"
set -- --kernel "$kernel" --agent "$build/bin/ccv2-agent" --runtime "$runtime" --out "$out"
"$build/bin/ccv2" image build "$@"
printf '%s\n' "$parts" >"$out/.parts"
