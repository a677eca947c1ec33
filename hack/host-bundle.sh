#!/bin/sh
# What an operator does with the bundle, on a host in a VM (hack/host.sh): systemd, KVM,
# cgroups of version 2, and no QEMU.
set -eu

export PATH="/usr/local/bin:/opt/test:$PATH"
finish() {
	status=$?
	echo "host: tests ended with $status"
	systemctl poweroff --force
}
trap finish EXIT
fail() {
	echo "host: $*"
	exit 1
}
# files are all of the host but what is the test's, and what daemons write by themselves.
files() {
	find / -xdev \( -path /opt/test -o -path /var/lib/containerd -o -path /var/lib/systemd -o -path /var/log \) -prune -o \
		\( -type f -exec sha256sum {} + \) -o -type l -printf '%p -> %l\n' -o -type d -print | sort
}
run() { ctr run --rm --runtime io.containerd.cc.v2 "$@"; }

modprobe kvm_amd
systemctl is-system-running --wait || true
# shellcheck source=/dev/null
echo "host: $(. /etc/os-release && echo "$PRETTY_NAME"), $(uname -r), $(stat -fc %T /sys/fs/cgroup), $(ls /dev/kvm)"
! command -v qemu-system-x86_64 || fail "the host has a QEMU of its own"
systemctl start containerd
ctr images import /opt/test/busybox.tar >/dev/null
image=$(ctr images ls -q | head -n 1)
files >/run/before
/opt/test/bundle/bin/ccv2 install -restart
echo "host: $(grep -h memory: /opt/ccv2/runtimeclass.yaml | tr -s ' ') for a VM"
[ "$(run "$image" one sh -c 'echo in a VM')" = 'in a VM' ] || fail "nothing runs"
ccv2 check >/run/check 2>&1 || { cat /run/check; fail "ccv2 check"; }
cat /run/check
grep -q '^ok .*accelerator .*kvm' /run/check || fail "it does not use KVM"
ctr run -d --runtime io.containerd.cc.v2 "$image" old sleep 1000
/opt/test/next/bin/ccv2 upgrade -restart -no-probe | grep 'processes of running pods' || fail "the version of a running pod is removed"
[ "$(ctr tasks exec --exec-id e old echo goes on)" = 'goes on' ] || fail "an upgrade ends a pod"
[ "$(run "$image" two echo in another)" = 'in another' ] || fail "nothing runs after an upgrade"
ctr tasks kill -s KILL old
until ctr tasks ls | grep -q STOPPED; do sleep 0.1; done
ctr tasks rm old >/dev/null 2>&1 || true
ctr containers rm old
ccv2 uninstall -restart
files >/run/after
diff /run/before /run/after || fail "the host is not what it was"
