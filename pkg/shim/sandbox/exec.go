package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/validate"
)

// Exec registers an exec process; spec is a process of the OCI specification as
// JSON. It does not run until StartExec.
func (c *Container) Exec(id string, cfg stdio.Config, spec []byte) error {
	var process specs.Process
	if err := json.Unmarshal(spec, &process); err != nil {
		return fmt.Errorf("exec %s: decode process: %w: %w", id, err, errdefs.ErrInvalidArgument)
	}
	if len(process.Args) == 0 {
		return fmt.Errorf("exec %s: process has no args: %w", id, errdefs.ErrInvalidArgument)
	}
	p := newProcess(c, id, cfg)
	p.spec = &process
	c.mu.Lock()
	_, exists := c.execs[id]
	if !exists {
		c.execs[id] = p
	}
	c.mu.Unlock()
	if exists {
		return fmt.Errorf("process %s of container %s: %w", id, c.ID, errdefs.ErrAlreadyExists)
	}
	c.sandbox.publish(ExecAdded{ContainerID: c.ID, ExecID: id})
	return nil
}

// StartExec runs a registered process.
func (c *Container) StartExec(ctx context.Context, id string) error {
	p, err := c.Process(id)
	if err != nil {
		return err
	}
	if err := p.claimStart(); err != nil {
		return err
	}
	if err := p.run(ctx); err != nil {
		err = fmt.Errorf("start %s: %w", p, err)
		p.startFailed(err)
		return err
	}
	c.sandbox.publish(ExecStarted{ContainerID: c.ID, ExecID: id, PID: p.PID()})
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.toLocked(ProcessRunning)
	c.sandbox.wg.Go(p.awaitExit)
	return err
}

// claimStart moves an exec process to starting, unless the container has ended:
// once that is known no exec starts any more, so that its exit is the last one.
func (p *Process) claimStart() error {
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.initGone || (c.state != ContainerRunning && c.state != ContainerCreated) {
		return fmt.Errorf("start %s: the container is %s: %w", p, c.state, errdefs.ErrFailedPrecondition)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.toLocked(ProcessStarting)
}

// run asks the guest for the process.
func (p *Process) run(ctx context.Context) error {
	s := p.container.sandbox
	if err := s.ready(); err != nil {
		return err
	}
	if err := validate.Process(p.spec); err != nil {
		return err
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	if err := appear(p, p.spec); err != nil {
		return err
	}
	process := guestspec.Process(p.spec, p.stdio.Terminal)
	process.ConsoleSize = cmp.Or(p.io.Size(), process.ConsoleSize)
	err := s.machine.Guest().Exec(ctx, p.io.Session(), client.Exec{
		Container: p.container.ID, ID: p.ID, Terminal: p.stdio.Terminal, Process: process,
	})
	if err != nil {
		return err
	}
	p.io.Copy(s.ctx, s.wg.Go, p.String())
	p.io.Feed(s.ctx, s.wg.Go, p.String())
	return nil
}

// DeleteExec removes a process that has exited or was never started, and returns
// how it ended.
func (c *Container) DeleteExec(ctx context.Context, id string) (Exit, error) {
	p, err := c.Process(id)
	if err != nil {
		return Exit{}, err
	}
	p.abandon()
	p.mu.Lock()
	err = p.toLocked(ProcessDeleted)
	p.mu.Unlock()
	if err != nil {
		return Exit{}, err
	}
	p.io.Close(ctx)
	c.mu.Lock()
	delete(c.execs, id)
	c.mu.Unlock()
	return p.Exit(), nil
}
