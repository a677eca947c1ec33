#!/bin/sh
# Builds the guest's own kernel from the sources of the distribution's, which have
# its fixes, with the patches of this directory, kernel-*.patch in the order of their
# names. The same sources, compiler and configuration make the same file.
#
# usage: hack/build-kernel.sh OUT-DIR
#   OUT-DIR gets boot/vmlinuz-RELEASE and lib/modules/RELEASE, as a package has them, and
#   for the list of the bundle's parts the package's name, version and copyright
set -eu

out=${1:?usage: hack/build-kernel.sh OUT-DIR}
here=$(cd "$(dirname "$0")" && pwd)
fragment=$here/guest-kernel.config
package=linux-source-6.1

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work/tree"
trap 'rm -rf "$work"' EXIT

fail() {
	echo "build-kernel: $*" >&2
	exit 1
}

apt-cache show "$package" >/dev/null 2>&1 || fail "this distribution has no package $package, which hack/guest-kernel.config is for; use the distribution's own kernel (make guest)"
(cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package" >log 2>&1) || { cat "$work/log" >&2; fail "download $package failed"; }
dpkg-deb -x "$work/$package"_*.deb "$work/package"
# The date of the package's changelog, so that a build of tomorrow has the same.
SOURCE_DATE_EPOCH=$(stat -c %Y "$work/package/usr/src/$package.tar.xz")
version=$(dpkg-deb -f "$work/$package"_*.deb Version)
tar -xf "$work/package/usr/src/$package.tar.xz" -C "$work/tree" --strip-components=1
cp "$work/package/usr/share/doc/$package/copyright" "$out/copyright"
for patch in "$here"/kernel-*.patch; do
	patch -d "$work/tree" -p1 -s --no-backup-if-mismatch <"$patch" >"$work/log" 2>&1 ||
		{ cat "$work/log" >&2; fail "$package $version does not take $patch: carry it to these sources (docs/decisions/0019)"; }
done
rm -rf "$work/package"

# build ARGUMENT... runs the kernel's make. It says nothing unless it fails.
build() {
	make -s -C "$work/tree" O="$work/out" ARCH=x86_64 "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; fail "make $* failed (the end of its output is above)"; }
}
mkdir "$work/out"
KBUILD_BUILD_TIMESTAMP=$(date -u -d "@$SOURCE_DATE_EPOCH" '+%F %T UTC')
KBUILD_BUILD_USER=ccv2 KBUILD_BUILD_HOST=ccv2 KBUILD_BUILD_VERSION=$version
export SOURCE_DATE_EPOCH KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER KBUILD_BUILD_HOST KBUILD_BUILD_VERSION KCONFIG_ALLCONFIG="$fragment"
build allnoconfig
unset KCONFIG_ALLCONFIG

grep '^CONFIG_' "$fragment" | sort -u >"$work/wanted"
sort -u "$work/out/.config" >"$work/taken"
comm -23 "$work/wanted" "$work/taken" >"$work/missing"
[ ! -s "$work/missing" ] || { cat "$work/missing" >&2; fail "$package $version does not take the lines above of $fragment"; }

build -j "$(nproc)" vmlinux modules.builtin
release=$(cat "$work/out/include/config/kernel.release")
rm -rf "${out:?}/boot" "${out:?}/lib"
mkdir -p "$out/boot" "$out/lib/modules/$release"
strip -o "$out/boot/vmlinuz-$release" "$work/out/vmlinux"
cp "$work/out/modules.builtin" "$out/lib/modules/$release/"
cp "$work/out/.config" "$out/boot/config-$release"
echo "$package $version" >"$out/package"
echo "    $release, from $package $version"
