package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func (s *containers) start(ctx context.Context, req hyperstart.ContainerRef) error {
	c, err := s.find(req.Container)
	if err != nil {
		return err
	}
	if err := c.to(stateStarting); err != nil {
		return err
	}
	s.shared.Refresh(c.id)
	if err := s.runtime.Start(ctx, c.oci); err != nil {
		// The init process cannot be started again; its end is reported as usual.
		return errors.Join(err, c.group.Kill())
	}
	c.complete(stateStarting, stateRunning)
	s.background.Go(func() { defer console.Guard(); s.drivers.LoadLate() })
	return nil
}

func (s *containers) pause(ctx context.Context, req hyperstart.ContainerRef) error {
	return s.move(ctx, req.Container, stateRunning, statePausing, statePaused, s.runtime.Pause)
}

func (s *containers) resume(ctx context.Context, req hyperstart.ContainerRef) error {
	return s.move(ctx, req.Container, statePaused, stateResuming, stateRunning, s.runtime.Resume)
}

// move takes a container from one state through another to a third, or back
// when do fails.
func (s *containers) move(
	ctx context.Context, id string, from, during, to containerState, do func(context.Context, ociruntime.Container) error,
) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	if err := c.to(during); err != nil {
		return err
	}
	if err := do(ctx, c.oci); err != nil {
		c.complete(during, from)
		return err
	}
	c.complete(during, to)
	return nil
}

func (s *containers) update(ctx context.Context, req hyperstart.UpdateContainerRequest) error {
	c, err := s.find(req.Container)
	if err != nil {
		return err
	}
	if state := c.current(); state == stateCreating || state >= stateStopped {
		return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, state)
	}
	c.update.Lock()
	defer c.update.Unlock()
	linux := map[string]json.RawMessage{"resources": req.Resources}
	if err := s.huge.Limit(c.id, linux); err != nil {
		return err
	}
	if err := cgroups.UpdateCPUs(linux); err != nil {
		return err
	}
	resources, err := hyperstart.Decode[specs.LinuxResources](linux["resources"])
	if err != nil {
		return err
	}
	return s.runtime.Update(ctx, c.oci, &resources)
}

func (s *containers) kill(_ context.Context, req hyperstart.KillContainerRequest) error {
	c, err := s.findForSignal(req.Container, req.Signal)
	if err != nil {
		return err
	}
	if req.Container == guestItself { // it has processes, and no init process of a container
		return hyperstart.Errorf(hyperstart.ClassNotFound, "no container %s", req.Container)
	}
	p, err := c.process(hyperstart.InitProcess)
	if err != nil {
		return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.current())
	}
	if !p.alive() {
		if s.tty.Uncredited() { // an original host: its agents acknowledge that
			return nil
		}
		return hyperstart.Errorf(hyperstart.ClassNotFound, "container %s: %w", c.id, ociruntime.ErrExited)
	}
	switch sig := unix.Signal(req.Signal); {
	case !req.AllProcesses:
		return p.signal(sig)
	case sig == unix.SIGKILL:
		return c.group.Kill()
	default:
		return c.group.Signal(sig)
	}
}

func (s *containers) signal(_ context.Context, req hyperstart.SignalProcessRequest) error {
	c, err := s.findForSignal(req.Container, req.Signal)
	if err != nil {
		return err
	}
	p, err := c.process(req.Process)
	if err != nil {
		return err
	}
	return p.signal(unix.Signal(req.Signal))
}

// findForSignal returns a container by id, unless the signal does not exist.
func (s *containers) findForSignal(id string, sig int) (*container, error) {
	const sigMax = 64 // _NSIG
	if sig < 0 || sig > sigMax {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "signal %d does not exist", sig)
	}
	return placeOf(s, id)
}

// winSizeRequest names the process by sequence number or by ids.
type winSizeRequest struct {
	hyperstart.WinSizeByName
	Seq uint64 `json:"seq"`
}

// resize sets the size of a terminal. A process that has ended or has no terminal
// is not an error: the message crossed its end.
func (s *containers) resize(_ context.Context, req winSizeRequest) error {
	for _, c := range s.all() {
		for id, p := range c.processes() {
			if p.io.Stdio() == req.Seq || req.Seq == 0 && c.id == req.Container && id == req.Process {
				return p.io.Resize(req.Row, req.Column)
			}
		}
	}
	return nil
}

// remove removes everything that a container has. A created container is ended
// first; a running one must be killed by the host.
func (s *containers) remove(ctx context.Context, req hyperstart.ContainerRef) error {
	c, err := s.find(req.Container)
	if err != nil {
		return err
	}
	if c.current() == stateCreated {
		if err := c.endCreated(ctx); err != nil {
			return err
		}
	}
	if err := c.to(stateRemoving); err != nil {
		return err
	}
	if err := s.cleanUp(ctx, c); err != nil {
		c.complete(stateRemoving, stateStopped)
		return fmt.Errorf("remove container %s: %w", c.id, err)
	}
	s.release(c)
	return nil
}

// endCreated ends a container that was not started.
func (c *container) endCreated(ctx context.Context) error {
	if err := c.group.Kill(); err != nil {
		return err
	}
	p, err := c.process(hyperstart.InitProcess)
	if err != nil {
		return err
	}
	return await(ctx, p.exited)
}

// cleanUp removes a container that has ended from the guest.
func (s *containers) cleanUp(ctx context.Context, c *container) error {
	for _, p := range c.processes() {
		p.io.Discard()
		if err := await(ctx, p.finished); err != nil {
			return err
		}
	}
	s.oom.Remove(c.id)
	if err := s.runtime.Delete(ctx, c.oci, false); err != nil {
		return err
	}
	if err := c.group.Remove(); err != nil {
		return err
	}
	if err := s.shared.Release(c.id); err != nil {
		return err
	}
	s.huge.Release(c.id)
	return os.RemoveAll(c.oci.Bundle)
}
