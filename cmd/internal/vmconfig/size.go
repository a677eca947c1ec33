package vmconfig

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// leastMemoryMiB is what the guest needs to start a container at all.
const leastMemoryMiB = 192

// Size returns the size of the VM for a pod with limits l: the configured size
// where there is no limit, at most the configured maximum or what the host has.
func Size(vm config.VM, l bundle.Limits) config.VM {
	if l.CPUQuota > 0 && l.CPUPeriod > 0 {
		vm.VCPUs = int((l.CPUQuota + int64(l.CPUPeriod) - 1) / int64(l.CPUPeriod))
	}
	if l.Memory > 0 {
		vm.MemoryMiB = max(int((l.Memory+1<<20-1)>>20)+vm.OverheadMiB, leastMemoryMiB)
	}
	if vm.MaxVCPUs == 0 {
		vm.MaxVCPUs = runtime.NumCPU()
	}
	if vm.MaxMemoryMiB == 0 {
		vm.MaxMemoryMiB = hostMemoryMiB()
	}
	vm.VCPUs = min(vm.VCPUs, vm.MaxVCPUs)
	vm.MemoryMiB = min(vm.MemoryMiB, vm.MaxMemoryMiB)
	return vm
}

func hostMemoryMiB() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return leastMemoryMiB // cannot happen; the smallest VM is the safe answer
	}
	return int(info.Totalram * uint64(info.Unit) >> 20)
}
