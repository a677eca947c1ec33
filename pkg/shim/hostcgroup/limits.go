package hostcgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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

// FreeThreads is how many more threads there may be in the group and in those above it.
// limited is false when nothing bounds them.
func (g *Group) FreeThreads() (free int, limited bool, err error) {
	free = math.MaxInt
	for dir := g.manager.Path("pids"); cgroups.PathExists(filepath.Join(dir, "pids.max")); dir = filepath.Dir(dir) {
		most, err := number(dir, "pids.max")
		if errors.Is(err, strconv.ErrSyntax) { // "max"
			continue
		}
		now, currentErr := number(dir, "pids.current")
		if err := errors.Join(err, currentErr); err != nil {
			return 0, true, fmt.Errorf("find out how many threads there may be: %w", err)
		}
		free, limited = min(free, max(0, most-now)), true
	}
	return free, limited, nil
}

// MemoryLimit is the smallest limit of memory, in bytes, of the group and of those above it;
// math.MaxInt without one.
func (g *Group) MemoryLimit() (int, error) {
	file := "memory.max"
	if !cgroups.IsCgroup2UnifiedMode() {
		file = "memory.limit_in_bytes" // without one it has a very large number
	}
	least := math.MaxInt
	for dir := g.manager.Path("memory"); cgroups.PathExists(filepath.Join(dir, file)); dir = filepath.Dir(dir) {
		limit, err := number(dir, file)
		if errors.Is(err, strconv.ErrSyntax) { // "max"
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find out how much memory there may be: %w", err)
		}
		least = min(least, limit)
	}
	return least, nil
}

// number reads a file with one.
func number(dir, file string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
