#!/bin/sh
# Builds a static crun from Debian 13's source, on every release: that of Debian 12
# ignores fields of the specification. Without libsystemd and the dynamic linker an
# invocation costs the guest a fraction of what Debian's binary costs. Needs what `hack/deps.sh crun` installs, and the network that
# apt uses; changes nothing outside of the output directory.
#
# usage: hack/build-crun.sh [OUTPUT-DIR]     (default build/crun-static)
set -eu
# shellcheck source=hack/debsource.sh
. "$(dirname "$0")/debsource.sh"

hack=$(cd "$(dirname "$0")" && pwd)
out=${1:-build/crun-static}
for tool in gcc make python3 pkg-config patch xz file strip apt-get dpkg-deb dpkg-source; do
	command -v "$tool" >/dev/null || { echo "build-crun: $tool is missing" >&2; exit 1; }
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work/debs" "$work/src"

debian_archives "$work/apt" trixie
(cd "$work/src" && apt source --download-only --tar-only crun/trixie)
(cd "$work/debs" && apt download libyajl-dev libseccomp-dev libcap-dev)
for deb in "$work"/debs/*.deb; do
	dpkg-deb -x "$deb" "$work/dev"
done
lib=$(dirname "$(find "$work/dev" -name libseccomp.a)")
# With only the archives there, no shared library can be picked by accident.
find "$work/dev" -name '*.so' -delete
ln -sf libyajl_s.a "$lib/libyajl.a"

cd "$work/src"
for part in crun_*.tar.[gx]z; do
	tar xf "$part"
done
cd crun-*/
patch -p1 -s <"$hack/crun-exec-terminal.patch"
patch -p1 -s <"$hack/crun-dangling-symlink.patch"
patch -p1 -s <"$hack/crun-exec-failure.patch"
# The release has generated files; the patches must not make them look stale.
find . -name aclocal.m4 -exec touch {} +
find . -name configure -exec touch {} +
find . -name config.h.in -exec touch {} +
find . -name Makefile.in -exec touch {} +

# libgcrypt, used where it happens to be installed, is a cache's hash only.
build() {
	./configure --quiet ac_cv_search_gcry_check_version=no ac_cv_header_gcrypt_h=no --disable-systemd --disable-criu --disable-dl --disable-shared \
		CFLAGS='-O2 -g0' CPPFLAGS="-I$work/dev/usr/include" LDFLAGS="-L$lib" \
		YAJL_CFLAGS="-I$work/dev/usr/include" YAJL_LIBS=-lyajl &&
		make -j"$(nproc)" .version git-version.h &&
		make -C libocispec -j"$(nproc)" libocispec.la &&
		make -j"$(nproc)" crun LDFLAGS="-all-static -L$lib"
}
build >"$work/build.log" 2>&1 || {
	tail -n 30 "$work/build.log" >&2
	exit 1
}
strip crun
install -m 755 crun "$out/crun"
# What is in it, for the bill of materials.
rm -rf "$out/licenses"
mkdir "$out/licenses"
cp COPYING COPYING.libcrun "$out/licenses/"
{
	"$out/crun" --version | sed -n 's/^crun version /crun /p'
	for deb in "$work"/debs/*.deb; do
		name=$(dpkg-deb -f "$deb" Package)
		echo "$name $(dpkg-deb -f "$deb" Version)"
		cp "$work/dev/usr/share/doc/$name/copyright" "$out/licenses/$name"
	done
	echo "libc6 $(dpkg-query -W -f '${Version}' libc6-dev)"
} >"$out/parts"
rm -rf "$work"
"$out/crun" --version
