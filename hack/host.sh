#!/bin/bash
# Runs end-to-end tests on hosts as users have them: a whole Debian with systemd and
# KVM, in a VM without any need for KVM. QEMU emulates the CPU with its virtualisation
# (SVM), so /dev/kvm in the VM is the kernel's own.
#
# Debian 13 has unified cgroups. Debian 12 is booted with hybrid ones: later kernels
# are without the memory controller of version 1. In each the tests run with cgroups as
# clients with the cgroupfs driver name them, and those with the systemd driver.
#
# Now and then the VM's kernel panics in code that it has just changed, which QEMU loses with
# a thread for each CPU (docs/decisions/0021): that is said, and tried again twice. A test that
# fails is not. With one thread, or one CPU, guests of the emulated SVM stand still for ever after
# some minutes (QEMU 7.2 and 10.0).
#
# With "bundle" it is a Debian 13 without QEMU, and what an operator does with the bundle of
# `make dist` (hack/host-bundle.sh).
#
# usage: hack/host.sh BUILD-DIR [TEST-REGEXP [LAYOUT]]
#   LAYOUT  unified or hybrid, default both, one after the other; or bundle
#   BENCH   in the environment: these benchmarks in place of tests, BENCHTIME times (3x)
set -euo pipefail

build=$(cd "${1:?usage: hack/host.sh BUILD-DIR [TEST-REGEXP [LAYOUT]]}" && pwd)
few='^(TestRunAttached|TestCgroup|TestHostOutOfMemory|TestPod|TestLimits)$'
tests='^(TestRunAttached|TestMissingBinary|TestLifecycle|TestRunTTY|TestExec|TestCgroup|TestHostOutOfMemory|TestPod|TestLimits|TestVolumeKinds|TestTemplateClones|TestNetwork)$'
[ -z "${2:-}" ] || few=$2 tests=$2
layout=${3:-}
[ "$(id -u)" = 0 ] || {
	echo "host: needs root: debootstrap makes device nodes" >&2
	exit 1
}
if [ -z "$layout" ]; then # not as a part of an expression, which would ignore errors in it
	"$0" "$build" "${2:-}" unified && unified=yes
	"$0" "$build" "${2:-}" hybrid && [ -n "${unified:-}" ]
	exit
fi
host=$build/host
mkdir -p "$host"
disk=$host/disk.img
trap 'rm -f "$disk"' EXIT

# distribution RELEASE makes its root. It is kept; what is in its name decides what is
# in it.
distribution() {
	local packages=systemd-sysv,dbus,udev,kmod,procps,iproute2,iptables,busybox-static,containernetworking-plugins,qemu-system-x86
	packages+=,linux-image-cloud-amd64,initramfs-tools,zstd
	[ "$layout" != bundle ] || packages=systemd-sysv,dbus,udev,kmod,linux-image-cloud-amd64,initramfs-tools,zstd
	[ "$1" = bookworm ] || [ "$layout" = bundle ] || packages+=,virtiofsd # a part of QEMU's until then
	root=$host/$1-$(printf %s "$packages" | sha256sum | cut -c1-12)
	[ ! -d "$root" ] || return 0
	local mirror log=$host/$1-debootstrap.log
	# shellcheck disable=SC2016 # a format of apt
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
	rm -rf "$root.part"
	debootstrap --variant=minbase --include="$packages" "$1" "$root.part" "$mirror" >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		echo "host: debootstrap failed; all it said is in $log" >&2
		return 1
	}
	rm -rf "$root.part"/var/cache/apt/archives/*.deb
	mv "$root.part" "$root"
}

# programs copies what is tested, and how it is started.
programs() {
	local program
	rm -rf "$root/opt/ccv2"
	mkdir -p "$root/opt/ccv2/bin"
	for program in containerd ctr containerd-shim-ccv2 containerd-shim-cc-v2 ccv2 runc containerd-shim-runc-v2; do
		cp -a "$build/bin/$program" "$root/opt/ccv2/bin/"
	done
	cp -r "$build/guest" "$build/busybox.tar" "$build/virtiofsd" "$root/opt/ccv2/"
	CGO_ENABLED=0 go -C test/e2e test -c -tags e2e -o "$root/opt/ccv2/e2e.test" .
	CGO_ENABLED=0 go -C test/e2e test -c -tags e2e -o "$root/opt/ccv2/cri.test" ./cri
	for program in test/e2e/testdata/*/main.go; do
		program=$(basename "$(dirname "$program")")
		arch=amd64
		[ "$program" != time32 ] || arch=386
		CGO_ENABLED=0 GOARCH=$arch go -C test/e2e build -o "$root/opt/ccv2/programs/$program" "./testdata/$program"
	done
	cat >"$root/opt/ccv2/run" <<EOF
#!/bin/sh
export PATH=/opt/ccv2/bin:\$PATH CCV2_BIN=/opt/ccv2/bin CCV2_GUEST=/opt/ccv2/guest CCV2_IMAGE=/opt/ccv2/busybox.tar CCV2_CONTAINERDS= CCV2_PROGRAMS=/opt/ccv2/programs CCV2_SLOW=1
# One built with a newer C library than this host's does not start here.
export CCV2_VIRTIOFSD=/opt/ccv2/virtiofsd/virtiofsd
\$CCV2_VIRTIOFSD --version || CCV2_VIRTIOFSD=/usr/lib/qemu/virtiofsd
modprobe kvm_amd
systemctl is-system-running --wait
echo "host: \$(. /etc/os-release; echo "\$PRETTY_NAME"), \$(uname -r), \$(qemu-system-x86_64 --version | head -n 1), systemd \$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), \$(stat -fc %T /sys/fs/cgroup), \$(ls /dev/kvm)"
if [ -n '${BENCH:-}' ]; then
	/opt/ccv2/e2e.test -test.timeout 40m -test.run '^\$' -test.bench '${BENCH:-}' -test.benchtime '${BENCHTIME:-3x}'
	echo "host: tests ended with \$?"
	systemctl poweroff --force
fi
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
	service /opt/ccv2/run
}

# bundle copies the bundle of `make dist`, another version of it, and what there is beside it
# on a host: a containerd, which is a service.
bundle() {
	local archive test=$root/opt/test
	archive=$(find "$build/dist" -name 'ccv2-*.tar.zst' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
	rm -rf "$test"
	mkdir -p "$test/bundle" "$root/etc/containerd/conf.d" "$root/etc/systemd/system"
	zstd -qdc --long=27 "$archive" | tar -C "$test/bundle" --strip-components 1 -xf -
	cp -a "$test/bundle" "$test/next"
	echo next >"$test/next/VERSION"
	sed -i "s|^[0-9a-f]*  VERSION\$|$(printf 'next\n' | sha256sum | cut -d' ' -f1)  VERSION|" "$test/next/SHA256SUMS"
	cp "$build/bin/containerd" "$build/bin/ctr" "$build/busybox.tar" hack/host-bundle.sh "$test/"
	printf 'version = 3\nimports = ["/etc/containerd/conf.d/*.toml"]\n' >"$root/etc/containerd/config.toml"
	# The emulated KVM is slower than a processor's.
	printf '[guest]\nboot_timeout = "100s"\ncall_timeout = "100s"\n' | install -D -m 644 /dev/stdin "$root/etc/ccv2/config.toml.d/slow.toml"
	printf '[Service]\nType=notify\nExecStart=/opt/test/containerd\nDelegate=yes\nKillMode=process\n' >"$root/etc/systemd/system/containerd.service"
	service /opt/test/host-bundle.sh
}

# service has a program of the root started with it, on the console.
service() {
	chmod +x "$root$1"
	cat >"$root/etc/systemd/system/ccv2-test.service" <<EOF
[Unit]
After=multi-user.target
[Service]
Environment=HOME=/root
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=$1
Delegate=yes
EOF
	mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
	ln -sf /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service" # it hangs the line up
	ln -sf ../ccv2-test.service "$root/etc/systemd/system/multi-user.target.wants/ccv2-test.service"
}

# boot LAYOUT runs the tests on a host with these cgroups.
boot() {
	local name=$1 release arguments attempt console root
	case $name in
	unified | bundle) release=trixie arguments= ;;
	hybrid) release=bookworm arguments=systemd.unified_cgroup_hierarchy=0 ;;
	*) echo "host: layout $name is neither unified nor hybrid nor bundle" >&2 && return 1 ;;
	esac
	distribution "$release"
	if [ "$name" = bundle ]; then bundle; else programs; fi
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
		grep -aE '^(host:|Benchmark|=== RUN|--- |    --- |PASS|FAIL|ok)|\.go:[0-9]+:' "$console" | grep -av '=== RUN' | tr -d '\r' || true
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

boot "$layout"
