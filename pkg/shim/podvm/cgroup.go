package podvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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

	mu     sync.Mutex // held while processor time is limited; guards the fields below
	quota  int64      // of the container, as it was asked for last; 0 for none
	period uint64
}

// systemdTimeout bounds what systemd is asked for.
const systemdTimeout = 20 * time.Second

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
	b.cgroup.Group, b.cgroup.bounded = group, b.pod.Limits != nil
	b.undo.Add(func(context.Context) error { return group.Leave() })
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	if err := group.Enter(ctx); err != nil {
		return errors.Join(err, b.update(func(s *store.State) { s.Cgroup = "" })) // it is not ours
	}
	if !b.cgroup.bounded {
		return nil
	}
	return group.Limit(ctx, b.bounds(ctx))
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

// enterCgroup moves everything that was started for the sandbox, and this process unless
// it has another one, into its cgroup wholly. Processor time is limited from now on.
func (b *boot) enterCgroup(ctx context.Context) error {
	if b.cgroup.Group != nil {
		if err := b.cgroup.EnterAll(); err != nil {
			return err
		}
	}
	// Not before: what was started would be there, in hierarchies that the sandbox's has not.
	if path := b.opts.ShimCgroup; path != "" {
		if err := hostcgroup.Join(path, os.Getpid()); err != nil {
			return fmt.Errorf("the shim's own cgroup (ShimCgroup of the runtime's options): %w", err)
		}
	}
	if b.cgroup.Group == nil || b.pod.Limits == nil {
		return nil
	}
	return b.LimitCPU(ctx, b.pod.Limits.CPU)
}

// LimitCPU bounds the processor time of what runs on the host for a sandbox that is
// no pod's; the guest bounds the container itself. A pod's cgroup is the business of
// whoever made it. cpu may be nil, and leave out what does not change. It needs a Boot
// that has succeeded.
func (m *Machine) LimitCPU(ctx context.Context, cpu *specs.LinuxCPU) error {
	if !m.cgroup.bounded || cpu == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	m.cgroup.mu.Lock()
	defer m.cgroup.mu.Unlock()
	if cpu.Quota != nil {
		m.cgroup.quota = *cpu.Quota
	}
	if cpu.Period != nil {
		m.cgroup.period = *cpu.Period
	}
	host := *cpu
	host.Quota, host.Period = nil, nil
	if quota := m.cgroup.quota; quota != 0 { // both, because one of them alone changes the other
		period := m.cgroup.period
		if period == 0 {
			period = defaultPeriod
		}
		if quota > 0 {
			quota += int64(period / helperShare)
		}
		host.Quota, host.Period = &quota, &period
	}
	err := m.cgroup.Limit(ctx, hostcgroup.Limits{CPU: &host})
	if errors.Is(err, unix.EINVAL) && m.cgroup.quota > 0 { // v1: a group above it has no more
		host.Quota = &m.cgroup.quota
		err = m.cgroup.Limit(ctx, hostcgroup.Limits{CPU: &host})
	}
	return err
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

// explain adds to an error of a boot that the host may be the cause.
func (b *boot) explain(err error) error {
	if killed, _ := b.OOMKilled(); killed {
		return fmt.Errorf("%w: the host was out of memory for the sandbox's cgroup (raise the pod's memory limit, or [vm] host_memory_mib without a pod)", err)
	}
	return err
}

// oomScore is by how much more the kernel shall prefer a process of the sandbox to the
// shim, in thousandths of the memory that is short.
const (
	oomScore    = 500
	oomScoreMax = 1000
)

// preferAsVictim makes a process one that the kernel ends before the shim when memory
// is short: early in a boot the VMM may have less than the shim, without which nobody
// would report what has happened, and clean up. Raising the score needs no privilege.
func preferAsVictim(pid int) error {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(own)))
	if err != nil {
		return fmt.Errorf("read /proc/self/oom_score_adj: %w", err)
	}
	score = min(score+oomScore, oomScoreMax)
	path := filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj")
	if err := os.WriteFile(path, []byte(strconv.Itoa(score)), 0); err != nil {
		return fmt.Errorf("let it be ended before the shim when memory is short: %w", err)
	}
	return nil
}

// room is how many more threads there may be.
func (g *cgroup) room() (int, error) {
	free, _, err := g.FreeThreads()
	return free, err
}
