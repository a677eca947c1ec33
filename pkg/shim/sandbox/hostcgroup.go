package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
)

// takeCgroup makes the cgroup that containerd names for the sandbox, below the
// pod's, and puts this process into it. The VMM follows in two steps: where
// memory is counted at once, where processor time is limited once it has
// booted, so that a small quota does not make the boot miss its deadline.
func (s *Sandbox) takeCgroup(pod bundle.Pod) error {
	if pod.CgroupsPath == "" {
		return nil
	}
	path, err := hostcgroup.Path(pod.CgroupsPath)
	if err != nil {
		return err
	}
	if err := mustBeFree(path); err != nil {
		return err
	}
	state, err := s.dir.Load()
	if err != nil {
		return err
	}
	state.Cgroup = path
	if err := s.dir.Save(state); err != nil {
		return err
	}
	group, err := hostcgroup.Create(path)
	if err != nil {
		return err
	}
	s.cgroup = group
	s.undo.add(func(context.Context) error { return group.Leave() })
	return nil
}

// mustBeFree refuses a cgroup that has processes: the end of the sandbox is the
// end of all that is in its cgroup.
func mustBeFree(path string) error {
	group, err := hostcgroup.Open(path)
	if err != nil {
		return err
	}
	pids, err := group.Processes()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("cgroup %s has %d processes already, it must be the sandbox's own: %w", path, len(pids), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// setUpVMM is called with the VMM's pid before the guest runs.
func (s *Sandbox) setUpVMM(pid int) error {
	if s.cgroup == nil {
		return nil
	}
	return s.cgroup.AddMemory(pid)
}

// enterCgroup moves all processes of the sandbox into its cgroup.
func (s *Sandbox) enterCgroup() error {
	if s.cgroup == nil {
		return nil
	}
	state, err := s.dir.Load()
	if err != nil {
		return err
	}
	for _, p := range state.Processes {
		if err := s.cgroup.Add(p.PID); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return s.cgroup.Enter()
}

// killedForMemory reports whether the host's kernel has killed a process of
// the sandbox because the pod's memory limit was reached.
func (s *Sandbox) killedForMemory(ctx context.Context) bool {
	if s.cgroup == nil {
		return false
	}
	n, err := s.cgroup.OOMKills()
	if err != nil {
		log.G(ctx).WithError(err).Warn("look for oom kills")
	}
	return n > 0
}
