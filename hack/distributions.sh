#!/bin/bash
# Runs the README's commands on the distributions that it names, each in a root
# made by debootstrap with no more in it than the README says a user has. That is
# how QEMU 7.2 and 10, the virtiofsd of each and the one that is built there, and the
# guest kernels of both are tested on one machine, with its kernel.
#
# Every command runs in mount and pid namespaces of its own, where that root is
# the root of the mount namespace: what it starts or mounts ends with it, however
# this ends. That nothing is left by the command itself is checked before.
#
# The packages of a distribution are downloaded once; the tree, what is installed
# and what is built are new in every run. Go, its modules and its build cache, and the
# crates that cargo has downloaded are the host's.
#
# usage: hack/distributions.sh BUILD-DIR [RELEASES [TARGETS]]
#   RELEASES  names of Debian releases, default "bookworm trixie"
#   TARGETS   of make, default "demo test"; VARIABLE=VALUE belongs to the target
#             before it, and has no space in it
set -euo pipefail

usage='usage: hack/distributions.sh BUILD-DIR [RELEASES [TARGETS]]'
die() {
	printf 'distributions: %s\n' "$*" >&2
	exit 1
}

# ---- In the namespaces, as process 1 of them. ----

# processes: those of this namespace beside this shell.
processes() {
	local stat pid comm
	for stat in /proc/[0-9]*/stat; do
		{ read -r pid comm _ <"$stat"; } 2>/dev/null || continue
		[ "$pid" = 1 ] || [ "$pid" = "$BASHPID" ] || echo "$pid $comm"
	done
}
# ip netns makes its directory a mount point, for good.
mounts() { awk '$5 != "/run/netns" { print $5 }' /proc/self/mountinfo | sort; }

# enter ROOT ARCHIVES GOROOT GOMODCACHE GOCACHE CRATES makes the root that of this
# mount namespace.
enter() {
	mount --bind "$1" "$1"
	mount -t proc proc "$1/proc"
	mount --rbind /sys "$1/sys"
	mount --rbind /dev "$1/dev"
	mount -t tmpfs -o mode=755 tmpfs "$1/run"
	mount --bind "$2" "$1/var/cache/apt/archives"
	mkdir -p "$1/usr/local/go" "$1/root/go/pkg/mod" "$1/root/.cache/go-build" "$1/root/.cargo/registry" "$1/.old"
	mount --bind "$3" "$1/usr/local/go"
	mount -o remount,bind,ro "$1/usr/local/go"
	mount --bind "$4" "$1/root/go/pkg/mod"
	mount --bind "$5" "$1/root/.cache/go-build"
	mount --bind "$6" "$1/root/.cargo/registry"
	cd "$1"
	pivot_root . .old
	cd /
	umount -l /.old
	rmdir /.old
}

# inside COMMAND...: runs the command, and looks for what it has left.
inside() {
	local before status=0 left
	export PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	cd /root/ccv2
	before=$(mounts)
	env -i PATH="$PATH" HOME=/root GOMODCACHE=/root/go/pkg/mod GOCACHE=/root/.cache/go-build "$@" || status=$?
	local tries=0
	while [ -n "$(processes)" ] && [ $((tries += 1)) -lt 100 ]; do
		sleep 0.05 # what was killed needs a moment
	done
	left=$(processes)
	[ -z "$left" ] || { status=1 && echo "distributions: processes were left behind: ${left//$'\n'/, }"; }
	left=$(comm -13 <(echo "$before") <(mounts))
	[ -z "$left" ] || { status=1 && echo "distributions: mounts were left behind: ${left//$'\n'/, }"; }
	exit "$status"
}

if [ "${1:-}" = --inside ]; then
	shift
	enter "${@:1:6}"
	inside "${@:7}"
fi

# ---- On the host. ----

build=$(cd "${1:?$usage}" && pwd)
releases=${2:-bookworm trixie}
[ "$(id -u)" = 0 ] || die "needs root: debootstrap makes device nodes"
for tool in debootstrap flock git go setpriv unshare; do
	command -v "$tool" >/dev/null || die "$tool is missing"
done
# One command an element.
commands=()
for word in ${3:-demo test}; do
	if [[ $word != *=* ]]; then
		commands+=("make $word")
	elif [ ${#commands[@]} -gt 0 ]; then
		commands[-1]+=" $word"
	else
		die "$word is for no target"
	fi
done

dir=$build/distributions
mkdir -p "$dir/logs"
echo 'module distributions // their packages have Go files, which are none of ours' >"$dir/go.mod"
exec 9>"$dir/lock"
flock -n 9 || die "another run works in $dir"
exec 8>&2 # a signal arrives while the output goes to a log

# What a command may use of the host's environment.
settings=(TERM="${TERM:-dumb}" LANG=C.UTF-8 CI=true)
for name in GOFLAGS GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOTOOLCHAIN; do
	settings+=("$name=$(go env "$name")")
done
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
	[ -z "${!name:-}" ] || settings+=("$name=${!name}")
done

# isolated COMMAND... runs it in namespaces of its own. unshare dies with this
# script, and everything in the namespaces with unshare.
child=
isolated() {
	local status=0
	setpriv --pdeathsig KILL env --default-signal=INT,QUIT \
		unshare --mount --pid --fork --kill-child --propagation private -- "$@" </dev/null 8>&- 9>&- &
	child=$!
	wait "$child" || status=$?
	child=
	return "$status"
}

# The control groups of tests have the names of their directories below /tmp,
# which are there as long as the test has not ended properly; ctr's namespace is
# the other one.
others=$(find /sys/fs/cgroup -maxdepth 2 -name default)
cgroups() {
	local test
	for test in "$dir"/*.run/tmp/ccv2-e2e-*; do
		[ ! -e "$test" ] || find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "${test##*/}*"
	done
	[ -n "$others" ] || find /sys/fs/cgroup -maxdepth 2 -type d -name default
}
remove_cgroups() {
	local group
	cgroups | while read -r group; do
		find "$group" -depth -type d -exec rmdir {} + || true # somebody else may use it
	done 2>/dev/null
}
taps() { for tap in /sys/class/net/*/tun_flags; do [ ! -e "$tap" ] || basename "${tap%/*}"; done; }

# interrupted SIGNAL: process 1 takes the rest with it before its parent hears of
# its end.
interrupted() {
	trap '' INT TERM HUP
	local init=
	if [ -n "$child" ]; then
		{ read -r init <"/proc/$child/task/$child/children"; } 2>/dev/null || true
		kill -KILL "${init:-$child}" 2>/dev/null || true
		wait "$child" || true
	fi
	remove_cgroups
	echo "distributions: interrupted by SIG$1" >&8
	exit $((128 + $(kill -l "$1")))
}
for signal in INT TERM HUP; do
	# shellcheck disable=SC2064 # the name of now
	trap "interrupted $signal" "$signal"
done

# site SUITE: where the host gets a suite of its distribution from.
site() {
	# shellcheck disable=SC2016 # a format of apt
	apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' | awk -v suite="$1" '$1 == suite { print $2; exit }'
}
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mirror=$(site "$codename")
[ -n "$mirror" ] || die "apt has no index of $codename; run apt-get update"
security=$(site "$codename-security")

packages=ca-certificates,git,make
# base RELEASE ROOT makes the root with what a user has, once.
base() {
	[ ! -d "$2" ] || return 0
	local log=$dir/logs/$1-debootstrap.log
	rm -rf "$2.part"
	isolated debootstrap --variant=minbase --include="$packages" --cache-dir="$dir/$1-archives" "$1" "$2.part" "$mirror" >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "$1: debootstrap failed; all it said is in $log"
	}
	rm -rf "$2.part"/var/cache/apt/archives/*.deb
	mv "$2.part" "$2"
}

# like_the_host RELEASE ROOT: packages come from where the host gets them.
like_the_host() {
	rm -f "$2/etc/apt/sources.list" "$2"/etc/apt/sources.list.d/*
	sources "$1 $1-updates" "$mirror" >"$2/etc/apt/sources.list.d/debian.sources"
	[ -z "$security" ] || sources "$1-security" "$security" >>"$2/etc/apt/sources.list.d/debian.sources"
	apt-config dump | grep -E '^Acquire::' >"$2/etc/apt/apt.conf.d/50host" || true
	cp -r /etc/apt/auth.conf.d "$2/etc/apt/" 2>/dev/null || true
	cp -L /etc/resolv.conf /etc/hosts "$2/etc/"
	cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$2/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true
}
sources() {
	printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' "$2" "$1"
}

# tree DIRECTORY: the working tree, with all that is not committed.
tree() {
	git clone -q --no-hardlinks . "$1"
	git diff --binary HEAD | git -C "$1" apply --allow-empty
	git ls-files -z --others --exclude-standard | tar -c --null -T - | tar -x -C "$1"
}

# version ROOT PROGRAM: the first version that the program of the root says; that
# of a virtiofsd wants /proc.
version() {
	# shellcheck disable=SC2016 # for the shell inside
	isolated sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" "$2" --version' sh "$1" "$2" 2>/dev/null |
		awk '{ for (i = 1; i <= NF; i++) if (!said && $i ~ /^v?[0-9]+[.][0-9]/) { print $i; said = 1 } }'
}

# versions ROOT: of what the tests depend on, as far as it is there.
versions() {
	local built=root/ccv2/build fsd
	for fsd in "/$built/virtiofsd/virtiofsd" /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd /usr/libexec/qemu/virtiofsd; do
		[ ! -x "$1$fsd" ] || break
	done
	printf '    QEMU %s, virtiofsd %s, guest kernel %s, containerd %s\n' \
		"$(version "$1" qemu-system-x86_64)" "$(version "$1" "$fsd")" \
		"$(sed -n 's/.*"kernelVersion": "\(.*\)".*/\1/p' "$1/$built/guest/manifest.json" 2>/dev/null)" \
		"$(version "$1" "/$built/bin/containerd")"
}

# run RELEASE ROOT COMMAND: one command, one line. It fails when the command
# does, or leaves something.
run() {
	local log begin status=0 left
	log=$dir/logs/$1-${3//[^a-zA-Z0-9]/-}.log
	begin=$(date +%s)
	# shellcheck disable=SC2086 # a list of words
	isolated "$0" --inside "$2" "$dir/$1-archives" "$goroot" "$gomodcache" "$gocache" "$crates" "${settings[@]}" $3 >"$log" 2>&1 || status=$?
	left=$(cgroups)
	remove_cgroups
	left+=$(comm -13 <(echo "$taps") <(taps))
	[ -z "$left" ] || { status=1 && echo "distributions: left behind: ${left//$'\n'/, }" | tee -a "$log" >&2; }
	if [ "$status" -eq 0 ]; then
		printf '    %s: %s done in %d s\n' "$1" "$3" $(($(date +%s) - begin))
	else
		tail -n 30 "$log" >&2
		printf '    %s: %s failed with status %d in %d s; all it said is in %s\n' "$1" "$3" "$status" $(($(date +%s) - begin)) "$log" >&2
	fi
	return "$status"
}

goroot=$(go env GOROOT) gomodcache=$(go env GOMODCACHE) gocache=$(go env GOCACHE)
crates=${CARGO_HOME:-$HOME/.cargo}/registry # as cargo downloaded them
mkdir -p "$gomodcache" "$gocache" "$crates"
taps=$(taps)
failed=()
for release in $releases; do
	mkdir -p "$dir/$release-archives/partial"
	pristine=$dir/$release-$(printf %s "$packages" | sha256sum | cut -c1-12) root=$dir/$release.run
	base "$release" "$pristine"
	echo "==> $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$pristine/etc/os-release")"
	rm -rf "$root"
	cp -a --reflink=auto "$pristine" "$root"
	like_the_host "$release" "$root"
	tree "$root/root/ccv2"
	ok=yes
	for command in "${commands[@]}"; do
		run "$release" "$root" "$command" || { ok= && failed+=("$release: $command"); }
	done
	versions "$root"
	if [ -n "$ok" ]; then
		rm -rf "$root"
	else
		echo "    what was built is in $root/root/ccv2/build" >&2
	fi
done
[ ${#failed[@]} -eq 0 ] || die "failed: $(printf '%s; ' "${failed[@]}" | sed 's/; $//'); the logs are in $dir/logs"
