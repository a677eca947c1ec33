package spare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// Source has a VM that was claimed, and those of a template where that is of no use. It is a
// source of pkg/shim/podvm.
type Source struct {
	Template *template.Source
	Pool     *Pool
	Claimed  *VM // nil for none; it is used once
}

// Acquire returns the VM that was claimed, or one of the template's source. refuse is that of
// [template.Source], which keeps the template when it is the spare VM that does not answer.
func (s *Source) Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (hypervisor.VM, func(error), error) {
	claimed := s.Claimed
	if s.Claimed = nil; claimed == nil {
		return s.Template.Acquire(ctx, spec, limit)
	}
	vm, err := s.adopt(ctx, claimed, spec)
	if err != nil {
		log.G(ctx).WithError(err).Warn("a spare VM cannot be used: the pod gets another one")
		s.Template.NotResized(ctx, claimed.Key, err)
		return s.Template.Acquire(ctx, spec, limit)
	}
	return vm, func(cause error) {
		if s.Template.NotResized(ctx, claimed.Key, cause) {
			return
		}
		log.G(ctx).WithError(cause).Warn("a spare VM does not answer: the pod gets one that boots")
	}, nil
}

// Release puts a VM that was claimed, and not used, back for another pod.
func (s *Source) Release() error {
	claimed := s.Claimed
	if s.Claimed = nil; claimed == nil {
		return nil
	}
	ready, _, _ := strings.Cut(claimed.dir, ".taken-")
	if err := os.Rename(claimed.dir, ready); err != nil {
		return fmt.Errorf("put back a spare vm: %w", err)
	}
	return nil
}

// adopt moves a VM below the sandbox's directory, from where on its record ends it, and
// starts it.
func (s *Source) adopt(ctx context.Context, claimed *VM, spec hypervisor.Spec) (_ hypervisor.VM, err error) {
	adopter, ok := s.Template.VM.Driver.(hypervisor.Adopter)
	if !ok {
		return nil, errors.Join(errors.New("vms of this kind cannot be taken over"), claimed.end(ctx))
	}
	to := filepath.Join(spec.Dir, store.SpareDir)
	if err := os.Rename(claimed.dir, to); err != nil {
		return nil, errors.Join(err, claimed.end(ctx))
	}
	ctx, cancel := template.Part(ctx)
	defer cancel()
	defer func() {
		if err != nil {
			err = errors.Join(err, claimed.Process.Kill(context.WithoutCancel(ctx)), os.RemoveAll(to))
		}
	}()
	// Before it goes on: what it uses from now on is the sandbox's.
	if err := errors.Join(likeThis(claimed.Process.PID), s.Pool.Group.Inherit(claimed.Process.PID)); err != nil {
		return nil, err
	}
	s.Pool.Group.RemoveEmpty()
	size, dir := spec.Size, to
	spec = s.Template.Spec(spec)
	spec.Dir = dir
	vm, err := adopter.Adopt(ctx, spec, claimed.Process)
	if err != nil {
		return nil, err
	}
	if err := s.Template.Grow(ctx, vm, size); err != nil {
		return nil, err
	}
	return vm, nil
}

// likeThis gives the threads of a process, which was made at the lowest priority, that of
// this one.
func likeThis(pid int) error {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return fmt.Errorf("read own priority: %w", err)
	}
	const zero = 20 // the system call answers 20 less the nice value
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, zero-own); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set the priority of a spare vm: %w", err)
		}
	}
	return nil
}
