package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// sizes are what a guest uses.
type sizes struct {
	cpus   int
	memory uint64 // in bytes, without what the kernel took when it booted
}

func inUse() (sizes, error) {
	var cpus unix.CPUSet // the agent may run on all
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return sizes{}, fmt.Errorf("count processors: %w", err)
	}
	info, err := os.ReadFile("/proc/meminfo")
	return sizes{cpus: cpus.Count(), memory: kernfs.KiB(info, "MemTotal:")}, err
}

// memoryDriver is there when the guest can use memory that is plugged.
const memoryDriver = "/sys/bus/virtio/drivers/virtio_mem"

// Online returns when the guest uses as many processors and as much memory more as were
// plugged since it has booted. No pod was started in it.
func (m *Machine) Online(ctx context.Context, cpus, memoryMiB int) error {
	m.load(&m.plug, layout.PhasePlug)
	if _, err := os.Stat(memoryDriver); err != nil && memoryMiB > 0 {
		return hyperstart.Errorf(hyperstart.ClassNotImplemented, "use memory that is plugged: the guest has no driver virtio_mem: %w", err)
	}
	before, err := inUse()
	if err != nil {
		return err
	}
	want := sizes{m.booted.cpus + cpus, m.booted.memory + uint64(max(memoryMiB, 0))<<20}
	now := before
	err = m.Wait(ctx, func() (bool, error) {
		// The kernel brings memory online by itself, as it is told to, while it adds it.
		if err := onlineCPUs(); err != nil {
			return false, err
		}
		now, err = inUse()
		return now.cpus >= want.cpus && now.memory >= want.memory, err
	})
	if err != nil {
		return fmt.Errorf("wait for %d processors, %d KiB of memory, of which there are %d, %d: %w", want.cpus, want.memory>>10, now.cpus, now.memory>>10, err)
	}
	return fitLimits(m.booted.memory, now.memory)
}

// fitted are limits that a kernel derives from its memory when it boots, and only then: those
// which containers can meet, beside [tunables]. Each has some numbers, of which the last has a
// most.
var fitted = []struct {
	pattern string
	first   int    // number that depends on it
	most    uint64 // that the kernel sets
}{
	{"/proc/sys/net/ipv4/tcp_mem", 0, 0},
	{"/proc/sys/net/ipv4/udp_mem", 0, 0},
	{"/proc/sys/net/ipv4/tcp_rmem", 2, 6 << 20},
	{"/proc/sys/net/ipv4/tcp_wmem", 2, 4 << 20},
	{"/proc/sys/user/max_*_namespaces", 0, 0},
}

// fitLimits makes the limits what they would be had the guest booted with its memory.
func fitLimits(booted, now uint64) error {
	if now <= booted {
		return nil
	}
	var errs []error
	for _, f := range fitted {
		paths, err := filepath.Glob(f.pattern)
		errs = append(errs, err)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err == nil {
				err = kernfs.Write(path, scaled(string(b), f.first, f.most, booted, now))
			}
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("fit limits to memory: %w", err)
	}
	return nil
}

// scaled are the numbers of a limit, those from first on times now / booted. With a most, the
// kernel sets no more.
func scaled(text string, first int, most, booted, now uint64) string {
	fields := strings.Fields(text)
	for i := first; i < len(fields); i++ {
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			continue
		}
		n = times(n, booted, now)
		if most > 0 {
			n = min(n, most)
		}
		fields[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(fields, " ")
}

// times is n × now ÷ booted; what is too large for that is no limit.
func times(n, booted, now uint64) uint64 {
	const largest = 1 << 24
	if n > largest {
		return n
	}
	return n * (now >> 10) / (booted >> 10)
}
