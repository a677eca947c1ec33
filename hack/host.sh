#!/bin/bash
# Runs end-to-end tests on a host as users have it: a whole Debian 13 with systemd,
# unified cgroups and KVM, in a VM without any need for KVM. QEMU emulates the CPU
# with its virtualisation (SVM), so /dev/kvm in the VM is the kernel's own.
#
# It is booted twice: with unified cgroups, and with hybrid ones. In each the tests
# run with cgroups as clients with the cgroupfs driver name them, and those with the
# systemd driver.
#
# The emulated SVM now and then locks up or panics the VM's kernel: that is said,
# and tried again twice. A test that fails is not.
#
# usage: hack/host.sh BUILD-DIR [TEST-REGEXP [LAYOUT]]
#   LAYOUT  unified or hybrid, default both, one after the other
set -euo pipefail

build=$(cd "${1:?usage: hack/host.sh BUILD-DIR [TEST-REGEXP [LAYOUT]]}" && pwd)
few='^(TestRunAttached|TestCgroup|TestHostOutOfMemory|TestPod|TestLimits)$'
tests='^(TestRunAttached|TestMissingBinary|TestLifecycle|TestRunTTY|TestExec|TestCgroup|TestHostOutOfMemory|TestPod|TestLimits|TestVolumeKinds)$'
[ -z "${2:-}" ] || few=$2 tests=$2
layouts=${3:-unified hybrid}
packages=systemd-sysv,dbus,udev,kmod,procps,iproute2,iptables,busybox-static,containernetworking-plugins,qemu-system-x86,virtiofsd
packages+=,linux-image-cloud-amd64,initramfs-tools,zstd
[ "$(id -u)" = 0 ] || {
	echo "host: needs root: debootstrap makes device nodes" >&2
	exit 1
}

# The distribution is kept; what is in its name decides what is in it.
name=$(printf '%s' "trixie $packages" | sha256sum | cut -c1-12)
host=$build/host root=$build/host/$name
mkdir -p "$host"
if [ ! -d "$root" ]; then
	# shellcheck disable=SC2016 # a format of apt
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
	rm -rf "$root.part"
	debootstrap --variant=minbase --include="$packages" trixie "$root.part" "$mirror" >"$host/debootstrap.log" 2>&1 || {
		tail -n 20 "$host/debootstrap.log" >&2
		echo "host: debootstrap failed; all it said is in $host/debootstrap.log" >&2
		exit 1
	}
	rm -rf "$root.part"/var/cache/apt/archives/*.deb
	mv "$root.part" "$root"
fi

# What is tested, and how it is started.
rm -rf "$root/opt/ccv2"
mkdir -p "$root/opt/ccv2/bin"
for program in containerd ctr containerd-shim-ccv2 containerd-shim-cc-v2 ccv2 runc containerd-shim-runc-v2; do
	cp -a "$build/bin/$program" "$root/opt/ccv2/bin/"
done
cp -r "$build/guest" "$build/busybox.tar" "$root/opt/ccv2/"
go -C test/e2e test -c -tags e2e -o "$root/opt/ccv2/e2e.test" .
go -C test/e2e test -c -tags e2e -o "$root/opt/ccv2/cri.test" ./cri
cat >"$root/opt/ccv2/run" <<EOF
#!/bin/sh
export PATH=/opt/ccv2/bin:\$PATH CCV2_BIN=/opt/ccv2/bin CCV2_GUEST=/opt/ccv2/guest CCV2_IMAGE=/opt/ccv2/busybox.tar CCV2_CONTAINERDS= CCV2_SLOW=1
modprobe kvm_amd
systemctl is-system-running --wait
echo "host: \$(uname -r), systemd \$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), \$(stat -fc %T /sys/fs/cgroup), \$(ls /dev/kvm)"
tests='$tests'
[ "\$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || tests='$few'
status=0
for driver in cgroupfs systemd; do
	for suite in e2e cri; do
		echo "host: \$suite with the \$driver driver"
		CCV2_CGROUPS=\$driver /opt/ccv2/\$suite.test -test.v -test.timeout 30m -test.run "\$tests" || status=1
	done
done
echo "host: tests ended with \$status"
systemctl poweroff --force
EOF
chmod +x "$root/opt/ccv2/run"
cat >"$root/etc/systemd/system/ccv2-test.service" <<'EOF'
[Unit]
After=multi-user.target
[Service]
Environment=HOME=/root
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/opt/ccv2/run
Delegate=yes
EOF
ln -sf ../ccv2-test.service "$root/etc/systemd/system/multi-user.target.wants/ccv2-test.service"
disk=$host/disk.img
trap 'rm -f "$disk"' EXIT

# boot LAYOUT runs the tests on the host booted with these cgroups.
boot() {
	local name=$1 arguments='' attempt console
	# Current systemds boot so only when they are told twice.
	[ "$name" = unified ] || arguments='systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1'
	for attempt in 1 2 3; do
		rm -f "$disk"
		truncate -s 6G "$disk"
		mkfs.ext4 -q -F -d "$root" "$disk"
		console=$host/console.$name.$attempt.log
		timeout 45m qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 5120 -machine q35 -nodefaults -no-reboot -nographic \
			-kernel "$root"/boot/vmlinuz-* -initrd "$root"/boot/initrd.img-* \
			-append "root=/dev/vda rw console=ttyS0 quiet loglevel=2 panic=1 softlockup_panic=1 net.ifnames=0 mitigations=off $arguments" \
			-drive "file=$disk,if=none,id=disk,format=raw,cache=unsafe" -device virtio-blk-pci,drive=disk -device virtio-rng-pci \
			-serial "file:$console" || true
		grep -aE '^(host:|=== RUN|--- |    --- |PASS|FAIL|ok)|\.go:[0-9]+:' "$console" | grep -av '=== RUN' | tr -d '\r' || true
		if grep -aq 'host: tests ended with 0' "$console"; then
			return 0
		elif grep -aq 'host: tests ended with' "$console"; then
			echo "host: tests failed with $name cgroups; the console is in $console" >&2
			return 1
		fi
		echo "host: the VM's own kernel or its emulation has failed in attempt $attempt; the console is in $console" >&2
	done
	return 1
}

status=0
for layout in $layouts; do
	boot "$layout" || status=1
done
exit "$status"
