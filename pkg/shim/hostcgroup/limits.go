package hostcgroup

import (
	"context"
	"fmt"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of shares, Documentation/scheduler/sched-design-CFS and the kernel's
// MIN_SHARES and MAX_SHARES.
const (
	minShares = 2
	maxShares = 1 << 18
)

// Limits bound what the processes of a group may use together. What is zero stays
// as it is, which is without a limit in a new group.
type Limits struct {
	Memory  int64           // bytes
	Threads int64           // of all processes
	CPU     *specs.LinuxCPU // real time is left out: it is the guest's own affair
}

// Limit sets limits of the group, which this process has entered. Where systemd has
// made the group it is told, so that it does not undo them. It is safe for concurrent
// use. ctx bounds the wait for systemd.
func (g *Group) Limit(ctx context.Context, l Limits) error {
	set := func() error {
		g.limiting.Lock()
		defer g.limiting.Unlock()
		return g.manager.Set(l.resources())
	}
	if err := within(ctx, set); err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	return nil
}

func (l Limits) resources() *cgroups.Resources {
	r := newResources()
	r.Memory = l.Memory
	if l.Threads != 0 {
		r.PidsLimit = &l.Threads
	}
	if l.CPU == nil {
		return r
	}
	if l.CPU.Shares != nil {
		r.CpuShares = *l.CPU.Shares
		if r.CpuShares != 0 { // v1 refuses what the guest takes for the nearest
			r.CpuShares = min(max(r.CpuShares, minShares), maxShares)
		}
		r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(r.CpuShares)
	}
	if l.CPU.Quota != nil {
		r.CpuQuota = *l.CPU.Quota
	}
	if l.CPU.Period != nil {
		r.CpuPeriod = *l.CPU.Period
	}
	r.CpuBurst, r.CPUIdle = l.CPU.Burst, l.CPU.Idle
	r.CpusetCpus, r.CpusetMems = l.CPU.Cpus, l.CPU.Mems
	return r
}

// newResources has what is the same for all groups. Devices are not confined: QEMU
// needs those of the host.
func newResources() *cgroups.Resources {
	return &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
}
