#!/bin/bash
# Compares `ctr run … true` with the bundle of `make dist` and the same with QEMU and
# virtiofsd as the distribution and `make virtiofsd` have them; shim, guest and containerd are
# the bundle's in both. It runs them in turns, and prints the median of each, and the
# median of the ratio of two that follow each other with its quartiles.
#
# usage: hack/bundle-bench.sh BUILD-DIR [PAIRS]
set -euo pipefail

if [ "${1:-}" = --inside ]; then
	build=$2 dir=$3 pairs=$4
	mount -t tmpfs tmpfs /run
	mkdir "$dir/bin"
	ln -s "$dir/bundle/bin/containerd-shim-ccv2" "$dir/bin/containerd-shim-cc-v2"
	sed -e "s|/usr/share/ccv2/|$dir/bundle/share/ccv2/|" -e "s|\"/usr/lib/qemu/virtiofsd\"|\"$build/virtiofsd/virtiofsd\"|" \
		"$dir/bundle/share/ccv2/config.toml" >"$dir/distribution.toml"
	sed -e "s|\"/usr/bin/qemu-system-x86_64\"|\"$dir/bundle/bin/qemu-system-x86_64\"|" -e "s|\"$build/virtiofsd/virtiofsd\"|\"$dir/bundle/bin/virtiofsd\"|" \
		"$dir/distribution.toml" >"$dir/bundle.toml"
	if cmp -s "$dir/distribution.toml" "$dir/bundle.toml"; then exit 1; fi
	client() { "$build/bin/ctr" -a "/run/$1.sock" "${@:2}" 2>>"$dir/log"; }
	for which in bundle distribution; do
		printf 'version = 3\nroot = "%s"\nstate = "/run/%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]\n[grpc]\naddress = "/run/%s.sock"\n' \
			"$dir/root.$which" "$which" "$which" >"$dir/$which.containerd"
		PATH=$dir/bin:$PATH CCV2_CONFIG=$dir/$which.toml "$build/bin/containerd" --config "$dir/$which.containerd" >"$dir/$which.log" 2>&1 &
		tries=0
		until client "$which" version >/dev/null; do
			[ $((tries += 1)) -lt 300 ] || { cat "$dir/$which.log" && exit 1; }
			sleep 0.1
		done
		client "$which" images import "$build/busybox.tar" >/dev/null
	done
	image=$(client bundle images ls -q | head -n 1)
	once() { # in ms
		local begin end
		begin=$(date +%s%N)
		client "$1" run --rm --runtime io.containerd.cc.v2 "$image" run true || { tail -n 5 "$dir/log" "$dir/$1.log" >&2 && exit 1; }
		end=$(date +%s%N)
		echo $(((end - begin) / 1000000))
	}
	once bundle >/dev/null && once distribution >/dev/null # caches
	for ((i = 0; i < pairs; i++)); do
		if ((i % 2)); then # which of them is the first one
			b=$(once bundle) d=$(once distribution)
		else
			d=$(once distribution) b=$(once bundle)
		fi
		echo "$b $d"
	done >"$dir/pairs"
	quantile() { sort -n | awk -v q="$1" '{ v[NR] = $1 } END { print v[int(q * (NR - 1) + 1.5)] }'; }
	ratios() { awk '{ printf "%.3f\n", $1 / $2 }' "$dir/pairs"; }
	echo "ctr run true, $pairs pairs: bundle $(cut -d' ' -f1 "$dir/pairs" | quantile 0.5) ms, distribution $(cut -d' ' -f2 "$dir/pairs" | quantile 0.5) ms," \
		"ratio $(ratios | quantile 0.5) (quartiles $(ratios | quantile 0.25) and $(ratios | quantile 0.75))"
	exit
fi

build=$(cd "${1:?usage: hack/bundle-bench.sh BUILD-DIR [PAIRS]}" && pwd)
bundle=$(find "$build/dist" -name 'ccv2-*.tar.zst' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
dir=$(mktemp -d "${TMPDIR:-/tmp}/ccv2-bench-XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bundle"
zstd -qdc --long=27 "$bundle" | tar -C "$dir/bundle" --strip-components 1 -xf -
unshare --mount --pid --net --ipc --fork --kill-child --mount-proc --propagation private "$0" --inside "$build" "$dir" "${2:-20}"
