package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// ErrUnkillable begins the cause of a VM that was ended for a container.
var ErrUnkillable = errors.New("the shim has ended the vm: SIGKILL was sent to")

// Kill sends a signal to a process, or with all to every process of the
// container. A process that has ended is errdefs.ErrNotFound.
func (c *Container) Kill(ctx context.Context, execID string, signal int, all bool) error {
	p, err := c.Process(execID)
	if err != nil {
		return err
	}
	if all && execID != "" {
		return fmt.Errorf("kill %s: all processes and one process cannot both be meant: %w", p, errdefs.ErrFailedPrecondition)
	}
	if err := p.killable(ctx); err != nil {
		return err
	}
	fatal := signal == sigkill && execID == ""
	if fatal {
		p.enforceKill()
	}
	for again := true; again; {
		if err := c.sandbox.ensureRunning(ctx); err != nil {
			return err
		}
		err = p.signal(ctx, signal, all)
		again = err != nil && ctx.Err() == nil && c.sandbox.machine.Paused() // meanwhile
	}
	if err == nil && signal == sigkill {
		disappear(p) // who has killed it looks for its pid before the exit is reported
	}
	if fatal && errors.Is(err, context.DeadlineExceeded) && !c.sandbox.machine.Paused() {
		// A guest that does not even take SIGKILL is not worth keeping.
		c.sandbox.machine.Kill(context.WithoutCancel(ctx), fmt.Errorf("%w container %s, which the guest does not answer", ErrUnkillable, c.ID))
		return nil
	}
	return err
}

// killable returns nil when the process exists in the guest. An exec that is
// being started is waited for: before that a signal could not reach it, and
// would be lost.
func (p *Process) killable(ctx context.Context) error {
	if p.ID == "" && p.container.State() == ContainerCreating {
		return fmt.Errorf("%s is being created: %w", p, errdefs.ErrFailedPrecondition)
	}
	if err := p.awaitStarted(ctx); err != nil {
		return err
	}
	if p.end.isFinal() {
		return fmt.Errorf("%s has ended already: %w", p, errdefs.ErrNotFound)
	}
	if p.io.Session() == nil {
		return fmt.Errorf("%s was not started: %w", p, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// signal sends a signal to the guest.
func (p *Process) signal(ctx context.Context, number int, all bool) error {
	target := client.Target{Container: p.container.ID, ExecID: p.ID, All: all}
	err := p.container.sandbox.machine.Guest().Signal(ctx, p.io.Session(), target, number)
	switch {
	case err == nil:
		return nil
	case p.end.isFinal(): // it ended meanwhile
		return fmt.Errorf("%s has ended already: %w", p, errdefs.ErrNotFound)
	}
	return fmt.Errorf("signal %d to %s: %w", number, p, err)
}

// enforceKill gives a container that gets SIGKILL some time to end, whatever the
// guest answers, and ends the VM otherwise. Clients of containerd wait for the
// exit, and try nothing else: without this a guest could keep its pod.
func (p *Process) enforceKill() {
	if !p.end.claimDeadline() {
		return
	}
	s := p.container.sandbox
	s.wg.Go(func() { // ends with the VM at the latest
		for !p.endsWithin(s.opts.KillTimeout) {
			if s.machine.Paused() {
				continue // nothing can end while the vCPUs are stopped
			}
			s.machine.Kill(s.ctx, fmt.Errorf("%w container %s, which has not ended within %s", ErrUnkillable, p.container.ID, s.opts.KillTimeout))
			return
		}
	})
}

// endsWithin waits for the end of the process, or of the VM, and reports whether
// it came in time.
func (p *Process) endsWithin(timeout time.Duration) bool {
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case <-p.end.seen:
	case <-p.end.final:
	case <-p.container.sandbox.end.known:
	case <-limit.C:
		return false
	}
	return true
}

// ensureRunning starts stopped vCPUs, because a signal must reach its process.
func (s *Sandbox) ensureRunning(ctx context.Context) error {
	s.mu.Lock()
	own := s.containers[s.opts.ID]
	s.mu.Unlock()
	for own != nil {
		if err := own.awaitPaused(ctx); err != nil {
			return err
		}
		if own.State() != ContainerPaused || !s.machine.Paused() {
			break
		}
		err := own.Resume(ctx)
		if _, raced := errors.AsType[*TransitionError](err); !raced {
			return err
		}
		// Another call resumes it, or it has exited.
	}
	if !s.machine.Paused() {
		return nil
	}
	return s.machine.Resume(ctx)
}
