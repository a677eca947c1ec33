package podvm

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

const (
	// helperThreads is how many threads there may be beside those of the vCPUs:
	// the shim has some ten, QEMU and virtiofsd up to 64 each that do I/O, and a
	// client's logger runs, too. What was taken over makes no more.
	helperThreads = 1024
	// helperShare is what is added to a quota of processor time for what runs
	// beside the vCPUs, as a part of a processor: the overhead of the RuntimeClass.
	helperShare = 10
	// defaultPeriod is the period in microseconds of a quota that names none.
	defaultPeriod = 100000
)

// cgroup is the sandbox's own.
type cgroup struct {
	*hostcgroup.Group      // nil when there is none
	bounded           bool // the limits are ours: nobody above it has any
}

// setUpCgroup makes the cgroup that containerd names for the sandbox, below the
// pod's, and enters it, so that all that is started for the sandbox starts there.
// Where processor time is limited apart from memory (v1) it is entered once the VM
// has booted, so that a small quota does not make the boot miss its deadline.
func (b *boot) setUpCgroup(ctx context.Context) error {
	if b.pod.CgroupsPath == "" {
		return nil
	}
	group, err := hostcgroup.Open(b.pod.CgroupsPath)
	if err != nil {
		return err
	}
	if err := mustBeEmpty(group); err != nil {
		return err
	}
	if err := b.update(func(s *store.State) { s.Cgroup = b.pod.CgroupsPath }); err != nil {
		return err
	}
	b.cgroup = cgroup{group, b.pod.Limits != nil}
	b.undo.Add(func(context.Context) error { return group.Leave() })
	if err := group.Enter(); err != nil {
		return err
	}
	if !b.cgroup.bounded {
		return nil
	}
	return group.Limit(b.bounds(ctx))
}

// bounds are what the VM may cost, where the host can bound it: what nobody has asked
// for must not keep a container from running.
func (b *boot) bounds(ctx context.Context) hostcgroup.Limits {
	limits := hostcgroup.Limits{Threads: int64(helperThreads + b.opts.Config.Spec.CPUs)}
	if beside := b.opts.Config.HostMemoryMiB; beside > 0 {
		limits.Memory = int64(b.opts.Config.Spec.MemoryMiB+beside) << 20
	}
	for controller, limit := range map[string]*int64{"memory": &limits.Memory, "pids": &limits.Threads} {
		if !b.cgroup.Has(controller) {
			log.G(ctx).WithField("sandbox", b.opts.ID).WithField("controller", controller).Warn("the host cannot bound the sandbox: it has no such cgroup controller")
			*limit = 0
		}
	}
	return limits
}

// mustBeEmpty refuses a cgroup that has processes: the end of the sandbox is the
// end of all that is in its cgroup.
func mustBeEmpty(group *hostcgroup.Group) error {
	pids, err := group.Processes()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("cgroup %s has %d processes already, it must be the sandbox's own: %w",
			group.Path(), len(pids), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// enterCgroup moves everything that was started for the sandbox, and this process,
// into its cgroup wholly. Processor time is limited from now on.
func (b *boot) enterCgroup(context.Context) error {
	if b.cgroup.Group == nil {
		return nil
	}
	if err := b.cgroup.EnterAll(); err != nil {
		return err
	}
	if b.pod.Limits == nil {
		return nil
	}
	return b.LimitCPU(b.pod.Limits.CPU)
}

// LimitCPU bounds the processor time of what runs on the host for a sandbox that is
// no pod's; the guest bounds the container itself. A pod's cgroup is the business of
// whoever made it. cpu may be nil. It needs a Boot that has succeeded.
func (m *Machine) LimitCPU(cpu *specs.LinuxCPU) error {
	if !m.cgroup.bounded || cpu == nil {
		return nil
	}
	host := *cpu
	if cpu.Quota != nil && *cpu.Quota > 0 {
		period := uint64(defaultPeriod)
		if cpu.Period != nil && *cpu.Period > 0 {
			period = *cpu.Period
		}
		quota := *cpu.Quota + int64(period/helperShare)
		host.Quota, host.Period = &quota, &period
	}
	return m.cgroup.Limit(hostcgroup.Limits{CPU: &host})
}

// OOMKilled reports whether the host's kernel has killed a process of the
// sandbox because the memory limit of its cgroup, or of the pod's, was reached.
func (m *Machine) OOMKilled() (bool, error) {
	if m.cgroup.Group == nil {
		return false, nil
	}
	n, err := m.cgroup.OOMKills()
	if err != nil {
		return false, fmt.Errorf("read oom kills of the sandbox's cgroup: %w", err)
	}
	return n > 0, nil
}
