package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// File descriptors that QEMU inherits: os/exec numbers extra files from 3 on.
const (
	monitorFD = 3
	consoleFD = 4
	memoryFD  = 5
)

// tbSizeMiB bounds QEMU's cache of translated code. The default is an eighth
// of the host's memory, up to 1 GiB, for every single VM; a Linux guest with a
// few processes fills less than 64 MiB, and boots as fast with 64 as with 512.
const tbSizeMiB = 128

// argv collects arguments.
type argv []string

func (a *argv) flag(flag string)       { *a = append(*a, flag) }
func (a *argv) add(flag, value string) { *a = append(*a, flag, value) }

// commandLine returns QEMU's arguments for a valid spec, without the program's name.
// It depends on nothing but its own arguments.
func commandLine(spec hypervisor.Spec, host hostFacts) []string {
	var a argv
	a.flag("-nodefaults")
	a.flag("-no-user-config")
	a.flag("-no-reboot") // a reset, hence also a panic, ends QEMU
	a.flag("-S")         // no guest code runs before the set-up is complete
	a.add("-name", "guest="+escape(spec.ID)+",debug-threads=on")
	a.add("-display", "none")
	a.add("-vga", "none")
	a.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	a.machine(spec)
	a.processors(spec)
	a.memory(spec)
	a.kernel(spec, host)
	a.monitor(spec)
	a.devices(spec)
	if spec.Snapshot != nil && spec.Snapshot.Devices != nil {
		a.add("-incoming", "defer")
	}
	return a
}

func (a *argv) machine(spec hypervisor.Spec) {
	// Everything that a board brings and that no container needs is off: less
	// to emulate, less to attack. Core dumps would contain the guest's secrets.
	m := "q35,sata=off,smbus=off,i8042=off,vmport=off,usb=off"
	if spec.Machine == hypervisor.MachineMicroVM {
		// The board's own serial line is the console. The devices are announced
		// through ACPI; a command line that names them is for kernels without.
		// With ACPI current kernels leave the PIC alone, which then passes the timer
		// on as the exception 0.
		m = "microvm,rtc=on,isa-serial=on,auto-kernel-cmdline=off,pic=off"
	}
	m += ",dump-guest-core=off"
	if spec.SharedMemory {
		m += ",memory-backend=ram"
	}
	a.add("-machine", m)
	a.add("-rtc", "base=utc")
}

func (a *argv) processors(spec hypervisor.Spec) {
	if spec.Accelerator == hypervisor.AccelKVM {
		a.add("-accel", "kvm")
		a.add("-cpu", "host")
	} else {
		// One thread for all vCPUs: with one for each, QEMU (of 7.2 to 11.1 at least) runs code of a
		// vCPU that another one has just changed as it was, and goes on to.
		a.add("-accel", fmt.Sprintf("tcg,thread=single,tb-size=%d", tbSizeMiB))
		// Byte-wise rep movsb and stosb, which these two bits make the guest's
		// kernel use, are emulated byte by byte: half the throughput.
		a.add("-cpu", "max,-erms,-fsrm")
	}
	smp := fmt.Sprintf("cpus=%d", spec.CPUs)
	if spec.Max.CPUs > spec.CPUs {
		smp += fmt.Sprintf(",maxcpus=%d", spec.Max.CPUs)
	}
	a.add("-smp", smp)
}

func (a *argv) memory(spec hypervisor.Spec) {
	m := fmt.Sprintf("size=%dM", spec.MemoryMiB)
	if spec.Max.MemoryMiB > spec.MemoryMiB {
		m += fmt.Sprintf(",maxmem=%dM", spec.Max.MemoryMiB+resizeRoomMiB)
	}
	a.add("-m", m)
	switch {
	case spec.Snapshot != nil:
		a.add("-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=/proc/self/fd/%d,share=on", spec.MemoryMiB, memoryFD))
	case spec.SharedMemory:
		a.add("-object", fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on", spec.MemoryMiB))
	}
}

func (a *argv) kernel(spec hypervisor.Spec, host hostFacts) {
	a.add("-kernel", spec.Kernel)
	if spec.Initrd != "" {
		a.add("-initrd", spec.Initrd)
	}
	a.add("-append", strings.Join(append(kernelArgs(spec, host), spec.KernelArgs...), " "))
}

// kernelArgs are the guest's kernel arguments that the driver needs; later
// ones win, so the caller's come after them.
func kernelArgs(spec hypervisor.Spec, host hostFacts) []string {
	args := []string{
		"console=ttyS0", // every character costs an exit, hence:
		"quiet",         // errors and panics only
		"panic=-1",      // a panic restarts at once, and -no-reboot ends QEMU
		"8250.nr_uarts=1",
		"cryptomgr.notests",
		"rcupdate.rcu_expedited=1",
		"random.trust_cpu=on",
		"no_timer_check",
		// Debian's without bpf, with which kernels before 6.10 let everybody set and
		// remove attributes of security.*, capabilities of programs among them.
		"lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,selinux,smack,tomoyo",
	}
	if spec.Max.MemoryMiB > spec.MemoryMiB {
		// What is plugged is used at once. For memory above 4 GiB, which there can be, the
		// kernel would set 64 MiB aside, for devices that cannot reach it; here all can.
		args = append(args, "memhp_default_state=online", "swiotlb=noforce")
	}
	if spec.Machine == hypervisor.MachineMicroVM {
		args = append(args, "reboot=t") // there is nothing else to reset it with
	}
	if spec.Accelerator == hypervisor.AccelTCG && host.tscKHz > 0 {
		// Under TCG the guest reads the host's time stamp counter. Telling its
		// frequency saves a calibration that a busy host spoils (and on which
		// microvm can hang). It must be the true one: the guest's clock runs by it.
		args = append(args, "tsc=reliable", "tsc_early_khz="+strconv.Itoa(host.tscKHz))
	}
	return args
}

func (a *argv) monitor(spec hypervisor.Spec) {
	a.add("-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD))
	a.add("-mon", "chardev=monitor,mode=control")
	if spec.Parked { // for who takes it over
		a.add("-chardev", "socket,id=adopter,server=on,wait=off,path="+escape(monitorSocket(spec)))
		a.add("-mon", "chardev=adopter,mode=control")
	}
	a.add("-chardev", fmt.Sprintf("socket,id=console,fd=%d", consoleFD))
	a.add("-serial", "chardev:console")
}

func (a *argv) devices(spec hypervisor.Spec) {
	transport := "pci"
	if spec.Machine == hypervisor.MachineMicroVM {
		transport = "device"
	}
	a.add("-object", "rng-random,id=entropy,filename=/dev/urandom")
	a.add("-device", "virtio-rng-"+transport+",id=rng0,rng=entropy")
	// What the guest frees goes back to the host, in pieces of 2 MiB, after some seconds.
	a.add("-device", "virtio-balloon-"+transport+",id=balloon0,free-page-reporting=on")
	a.ports(spec, transport)
	for i, share := range spec.Shares9P {
		// The shim runs as root, and so do the guest's file operations: the
		// owner and mode that a container sees are those on the host.
		a.add("-fsdev", fmt.Sprintf("local,id=fs%d,path=%s,security_model=passthrough,multidevs=remap", i, escape(share.Dir)))
		a.add("-device", fmt.Sprintf("virtio-9p-%s,id=share%d,fsdev=fs%d,mount_tag=%s", transport, i, i, escape(share.Tag)))
	}
	if spec.Machine == hypervisor.MachineQ35 {
		a.hotplugBridge()
	}
}

func (a *argv) ports(spec hypervisor.Spec, transport string) {
	if len(spec.Ports) == 0 {
		return
	}
	// Port 0 is reserved for a console, so numbers start from 1.
	a.add("-device", fmt.Sprintf("virtio-serial-%s,id=serial0,max_ports=%d", transport, len(spec.Ports)+1))
	for i, port := range spec.Ports {
		a.add("-chardev", fmt.Sprintf("socket,id=port%d,path=%s,server=on,wait=off", i, escape(portSocket(spec, i))))
		a.add("-device", fmt.Sprintf("virtserialport,bus=serial0.0,nr=%d,chardev=port%d,name=%s", i+1, i, escape(port)))
	}
}

// hotplugBus is the bridge that devices are plugged into. One bridge with ACPI
// hot-plug has room for all of them, and costs the guest's kernel nothing while
// it boots; eight root ports cost it 0.15 s of an emulated CPU.
const hotplugBus = "hotplug"

// hotplugBridge adds the bridge at an address above those that QEMU gives out.
// Its own kind of hot-plug, SHPC, is off: kernels that know it would prefer it.
// The firmware sets aside the memory that devices will need, 2 MiB of each kind
// for some 20 KiB a device.
func (a *argv) hotplugBridge() {
	a.add("-device", "pci-bridge,id="+hotplugBus+",bus=pcie.0,addr=0x1e,chassis_nr=1,shpc=off,mem-reserve=2M,pref64-reserve=2M")
}

// hotplugSlots is the number of devices that can be plugged at the same time.
func hotplugSlots(spec hypervisor.Spec) int {
	if spec.Machine != hypervisor.MachineQ35 {
		return 0
	}
	return maxSlots
}

// escape doubles commas, as QEMU's option lists want it.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// monitorSocket and consoleSocket are the paths of what a machine that is parked has, where
// others have what they inherit. They are no longer than those of ports.
func monitorSocket(spec hypervisor.Spec) string { return filepath.Join(spec.Dir, "qmp.sock") }
func consoleSocket(spec hypervisor.Spec) string { return filepath.Join(spec.Dir, "tty.sock") }

// portSocket is the path of the socket that QEMU makes for a port.
func portSocket(spec hypervisor.Spec, n int) string {
	return filepath.Join(spec.Dir, fmt.Sprintf("port%d.sock", n))
}
