package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// ref decodes the payload of a command that names a container only.
func (a *Agent) ref(payload []byte) (*container, error) {
	req, err := hyperstart.Decode[hyperstart.ContainerRef](payload)
	if err != nil {
		return nil, err
	}
	return a.find(req.Container)
}

func (a *Agent) startContainer(ctx context.Context, payload []byte) ([]byte, error) {
	c, err := a.ref(payload)
	if err != nil {
		return nil, err
	}
	if err := c.to(stateStarting); err != nil {
		return nil, err
	}
	if err := a.oci.start(ctx, c); err != nil {
		// The init cannot be started again; its end is reported as usual.
		return nil, errors.Join(err, c.group.Kill())
	}
	c.settle(stateStarting, stateRunning)
	go func() { defer console.Guard(); a.machine.LoadLate() }()
	return nil, nil
}

func (a *Agent) pauseContainer(ctx context.Context, payload []byte) ([]byte, error) {
	return nil, a.move(payload, stateRunning, statePausing, statePaused, func(c *container) error { return a.oci.pause(ctx, c) })
}

func (a *Agent) resumeContainer(ctx context.Context, payload []byte) ([]byte, error) {
	return nil, a.move(payload, statePaused, stateResuming, stateRunning, func(c *container) error { return a.oci.resume(ctx, c) })
}

// move takes a container from one state through another to a third, or back
// when do fails.
func (a *Agent) move(payload []byte, from, during, to containerState, do func(*container) error) error {
	c, err := a.ref(payload)
	if err != nil {
		return err
	}
	if err := c.to(during); err != nil {
		return err
	}
	if err := do(c); err != nil {
		c.settle(during, from)
		return err
	}
	c.settle(during, to)
	return nil
}

func (a *Agent) updateContainer(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.UpdateContainerRequest](payload)
	if err != nil {
		return nil, err
	}
	c, err := a.find(req.Container)
	if err != nil {
		return nil, err
	}
	if s := c.current(); s == stateCreating || s >= stateStopped {
		return nil, hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, s)
	}
	c.update.Lock()
	defer c.update.Unlock()
	linux := map[string]json.RawMessage{"resources": req.Resources}
	if err := a.huge.Limit(c.id, linux); err != nil {
		return nil, err
	}
	resources, err := hyperstart.Decode[specs.LinuxResources](linux["resources"])
	if err != nil {
		return nil, err
	}
	return nil, a.oci.update(ctx, c, &resources)
}

func (a *Agent) killContainer(_ context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.KillContainerRequest](payload)
	if err != nil {
		return nil, err
	}
	if err := checkSignal(req.Signal); err != nil {
		return nil, err
	}
	c, err := a.find(req.Container)
	if err != nil {
		return nil, err
	}
	p, err := c.process(hyperstart.InitProcess)
	if err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.current())
	}
	if !p.alive() {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "container %s: %w", c.id, errExited)
	}
	if !req.AllProcesses {
		return nil, a.signal(p, req.Signal)
	}
	if unix.Signal(req.Signal) == unix.SIGKILL {
		return nil, c.group.Kill()
	}
	return nil, c.group.Signal(unix.Signal(req.Signal))
}

func (a *Agent) signalProcess(_ context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.SignalProcessRequest](payload)
	if err != nil {
		return nil, err
	}
	if err := checkSignal(req.Signal); err != nil {
		return nil, err
	}
	c, err := a.find(req.Container)
	if err != nil {
		return nil, err
	}
	p, err := c.process(req.Process)
	if err != nil {
		return nil, err
	}
	return nil, a.signal(p, req.Signal)
}

func checkSignal(sig int) error {
	const sigMax = 64 // _NSIG
	if sig < 0 || sig > sigMax {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "signal %d does not exist", sig)
	}
	return nil
}

// winSize names the process by sequence number or by ids. A process that has
// gone or has no terminal is no error: the message crossed its end.
func (a *Agent) winSize(_ context.Context, payload []byte) ([]byte, error) {
	type either struct {
		hyperstart.WinSizeByName
		Seq uint64 `json:"seq"`
	}
	req, err := hyperstart.Decode[either](payload)
	if err != nil {
		return nil, err
	}
	for _, c := range a.all() {
		for id, p := range c.processes() {
			if p.io.Stdio() == req.Seq || req.Seq == 0 && c.id == req.Container && id == req.Process {
				return nil, p.io.Resize(req.Row, req.Column)
			}
		}
	}
	return nil, nil
}

// removeContainer frees everything that a container has. A created container
// is ended first; a running one must be killed by the host.
func (a *Agent) removeContainer(ctx context.Context, payload []byte) ([]byte, error) {
	c, err := a.ref(payload)
	if err != nil {
		return nil, err
	}
	if c.current() == stateCreated {
		if err := a.endCreated(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := c.to(stateRemoving); err != nil {
		return nil, err
	}
	if err := a.remove(ctx, c); err != nil {
		c.settle(stateRemoving, stateStopped)
		return nil, err
	}
	a.drop(c)
	return nil, nil
}

func (a *Agent) endCreated(ctx context.Context, c *container) error {
	if err := c.group.Kill(); err != nil {
		return err
	}
	p, err := c.process(hyperstart.InitProcess)
	if err != nil {
		return err
	}
	return await(ctx, p.reaped)
}

func (a *Agent) remove(ctx context.Context, c *container) error {
	for _, p := range c.processes() {
		p.io.Discard()
		if err := await(ctx, p.sent); err != nil {
			return fmt.Errorf("remove container %s: %w", c.id, err)
		}
	}
	a.oom.Remove(c.id)
	err := a.oci.delete(ctx, c, false)
	if _, serr := os.Stat(filepath.Join(layout.RuntimeState, c.id)); err != nil && serr == nil {
		return fmt.Errorf("remove container %s: %w", c.id, err)
	}
	if err := c.group.Remove(); err != nil {
		return fmt.Errorf("remove container %s: %w", c.id, err)
	}
	a.huge.Release(c.id)
	return os.RemoveAll(c.dir)
}
