#!/bin/bash
# Runs a busybox container in a VM of its own, through a private containerd.
#
# Everything happens in mount and pid namespaces of this run, with a /run of its
# own in memory: nothing of the host's containerd is touched, and nothing can be
# left behind, however this ends. That nothing is left behind by containerd and
# the shim themselves is checked before.
#
# usage: hack/demo.sh demo|shell [BUILD-DIR]
set -euo pipefail

mode=${1:?usage: hack/demo.sh demo|shell [BUILD-DIR]}
build=$(cd "${2:-build}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
image=ccv2.test/busybox:latest
runtime=io.containerd.cc.v2

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || die "needs root: containerd mounts file systems"
if [ "$mode" = shell ] && ! [ -t 0 ]; then
	die "make shell needs a terminal; make demo does not"
fi

if [ "${CCV2_DEMO_INSIDE:-}" != yes ]; then
	mkdir -p "$build/demo"
	unshare --mount --propagation slave --pid --fork true 2>"$build/demo/unshare.log" ||
		die "namespaces are not available here ($(cat "$build/demo/unshare.log")): in a container run it privileged, in a chroot make the root a mount point"
	CCV2_DEMO_INSIDE=yes exec unshare --mount --propagation slave --pid --fork --kill-child --mount-proc -- "$here/demo.sh" "$mode" "$build"
fi

# From here on this is process 1 of the pid namespace.
mount -t tmpfs -o mode=755 tmpfs /run
work=/run/demo
log=$build/demo/containerd.log
socket=$work/containerd.sock
mkdir -p "$work"
: >"$log"

now() { date +%s%N; }
# since BEGIN: seconds with two digits.
since() {
	local ms=$((($(now) - $1) / 1000000))
	printf '%d.%02d s' $((ms / 1000)) $((ms % 1000 / 10))
}
failed() {
	printf '\ndemo: %s; the end of %s:\n' "$1" "$log" >&2
	tail -n 20 "$log" >&2
	exit 1
}
ctr() { "$build/bin/ctr" -a "$socket" "$@"; }

# others: the processes of this namespace beside the script and its children.
others() {
	local stat pid comm ppid
	for stat in /proc/[0-9]*/stat; do
		read -r pid comm _ ppid _ <"$stat" 2>/dev/null || continue
		[ "$pid" = 1 ] || [ "$ppid" = 0 ] || [ "$comm" = '(demo.sh)' ] || echo "$pid $comm"
	done
}
# Mounts that were below the host's /run are below this one, out of sight.
mounts() { awk -v below="^$work/" '$5 ~ below { print $5 }' /proc/self/mountinfo; }

configure() {
	local fsd
	for fsd in "$build/virtiofsd/virtiofsd" /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd /usr/libexec/qemu/virtiofsd; do
		[ ! -x "$fsd" ] || break
	done
	cat >"$work/ccv2.toml" <<-EOF
		state_dir = "$work/ccv2"
		[hypervisor]
		path = "$(command -v qemu-system-x86_64)"
		[guest]
		kernel = "$build/guest/vmlinux"
		image = "$build/guest/initrd.img"
		[template]
		dir = "$work/templates"
		background = false
		[share]
		virtiofsd = "$fsd"
	EOF
	cat >"$work/containerd.toml" <<-EOF
		version = 4
		root = "$work/root"
		state = "$work/state"
		disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
		[plugins.'io.containerd.server.v1.grpc']
		address = "$socket"
		[plugins.'io.containerd.server.v1.ttrpc']
		address = "$socket.ttrpc"
	EOF
}

start_containerd() {
	CCV2_CONFIG=$work/ccv2.toml PATH=$build/bin:$PATH \
		"$build/bin/containerd" -c "$work/containerd.toml" >>"$log" 2>&1 &
	containerd=$!
	local tries=0
	until ctr version >/dev/null 2>&1; do
		kill -0 "$containerd" 2>/dev/null || failed "containerd did not start"
		[ $((tries += 1)) -lt 600 ] || failed "containerd did not answer within 30 s"
		sleep 0.05
	done
}

# stop ends containerd and sees that nothing outlives it.
stop() {
	local tries=0
	while [ "$(others)" != "$containerd (containerd)" ] && [ $((tries += 1)) -lt 100 ]; do
		sleep 0.05 # the shim ends a moment after its last container
	done
	kill "$containerd"
	wait "$containerd" || true
	[ -z "$(others)" ] || failed "processes were left behind: $(others | tr '\n' ' ')"
	[ -z "$(mounts)" ] || failed "mounts were left behind: $(mounts | tr '\n' ' ')"
}

# field NAME: a field of the line that the shim wrote when the VM was ready.
field() { sed -n "s/.*msg=\"sandbox ready\".* $1=\"\{0,1\}\([^ \"]*\).*/\1/p" "$log" | head -n 1; }
# span NAME: such a field, rounded.
span() { field "$1" | sed -E 's/\.[0-9]+(µs|ms)$/\1/; s/(\.[0-9]{2})[0-9]*s$/\1s/; s/([0-9])([^0-9.]+)$/\1 \2/'; }

report() {
	local reason accelerator='kvm'
	reason=$(sed -n 's/.*no kvm: .* reason="\(.*\)" .*/\1/p; s/.*no kvm: .* reason="\(.*\)"$/\1/p' "$log" | head -n 1)
	[ -z "$reason" ] || accelerator="tcg, emulation ($reason)"
	printf '    host kernel     %s\n' "$(uname -r)"
	printf '    guest kernel    %s\n' "$guest"
	printf '    accelerator     %s\n' "$accelerator"
	printf '    start-up        prepare %s, QEMU to its monitor %s, kernel to READY %s,\n' "$(span prepare)" "$(span monitor)" "$(span ready)"
	printf '                    plug the share %s, pod %s; in all %s\n' "$(span plug)" "$(span pod)" "$(span took)"
}

echo "==> start a private containerd"
begin=$(now)
configure
start_containerd
echo "    done in $(since "$begin") (log: ${log#"$PWD"/})"

echo "==> import $image"
begin=$(now)
ctr images import "$build/busybox.tar" >/dev/null 2>>"$log" || failed "the import failed"
echo "    done in $(since "$begin")"

if [ "$mode" = shell ]; then
	echo "==> ctr run --rm --tty --runtime $runtime $image demo /bin/sh    (leave it with exit)"
	status=0
	ctr run --rm --tty --runtime "$runtime" "$image" demo /bin/sh || status=$?
	echo "    the shell ended with status $status"
	guest=$(sed -n 's/.*"kernelVersion": "\(.*\)".*/\1/p' "$build/guest/manifest.json")
else
	# shellcheck disable=SC2016 # for the shell in the container
	command='echo "Hello from $(uname -sr), PID $$ of a container in a VM of its own"'
	echo "==> ctr run --rm --runtime $runtime $image demo /bin/sh -c '$command'"
	begin=$(now)
	output=$(ctr run --rm --runtime "$runtime" "$image" demo /bin/sh -c "$command" 2>>"$log") || failed "the container failed"
	took=$(since "$begin")
	printf '\n    %s\n\n    done in %s\n' "$output" "$took"
	guest=$(sed -n 's/.*Linux \([^,]*\),.*/\1/p' <<<"$output")
fi

echo "==> stop containerd, look for what is left"
begin=$(now)
stop
echo "    nothing; done in $(since "$begin")"
[ "$mode" = demo ] || [ -n "$(field took)" ] || failed "no VM was started"
echo "==> figures"
report
