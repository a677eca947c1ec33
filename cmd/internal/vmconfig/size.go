package vmconfig

import (
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/config"
)

// Annotations of containerd's CRI on the sandbox's own container: what all
// containers of the pod may use together.
const (
	annotationCPUQuota  = "io.kubernetes.cri.sandbox-cpu-quota"  // microseconds per period
	annotationCPUPeriod = "io.kubernetes.cri.sandbox-cpu-period" // microseconds
	annotationMemory    = "io.kubernetes.cri.sandbox-memory"     // bytes
)

// leastMemoryMiB is what the guest needs to start a container at all.
const leastMemoryMiB = 192

// Limits are what a pod may use; 0 is no limit.
type Limits struct {
	CPUQuota  int64  // microseconds per period
	CPUPeriod uint64 // microseconds
	Memory    int64  // bytes
}

// LimitsOf reads a pod's limits from the annotations of its sandbox, or takes
// those of the container itself where there is no pod.
func LimitsOf(annotations map[string]string, own Limits) Limits {
	if _, ok := annotations[annotationMemory]; !ok {
		return own
	}
	// Malformed numbers are as good as none: containerd writes them.
	quota, _ := strconv.ParseInt(annotations[annotationCPUQuota], 10, 64)
	period, _ := strconv.ParseUint(annotations[annotationCPUPeriod], 10, 64)
	memory, _ := strconv.ParseInt(annotations[annotationMemory], 10, 64)
	return Limits{CPUQuota: quota, CPUPeriod: period, Memory: memory}
}

// Size returns the size of the VM for a pod with limits l: the configured size
// where there is no limit, at most the configured maximum or what the host has.
func Size(vm config.VM, l Limits) config.VM {
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
