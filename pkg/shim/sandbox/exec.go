package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// Exec registers an additional process; spec is a process of the OCI
// specification as JSON. It does not run until StartExec.
func (c *Container) Exec(id string, cfg stdio.Config, spec []byte) error {
	var process specs.Process
	if err := json.Unmarshal(spec, &process); err != nil {
		return fmt.Errorf("exec %s: decode process: %w: %w", id, err, errdefs.ErrInvalidArgument)
	}
	if len(process.Args) == 0 {
		return fmt.Errorf("exec %s: process has no args: %w", id, errdefs.ErrInvalidArgument)
	}
	c.mu.Lock()
	_, taken := c.execs[id]
	if !taken {
		c.execs[id] = newProcess(c, id, cfg, &process)
	}
	c.mu.Unlock()
	if taken {
		return fmt.Errorf("process %s of container %s: %w", id, c.ID, errdefs.ErrAlreadyExists)
	}
	c.sandbox.opts.Sink.Publish(ExecAdded{ContainerID: c.ID, ExecID: id})
	return nil
}

// StartExec runs a registered process.
func (c *Container) StartExec(ctx context.Context, id string) error {
	p, err := c.Process(id)
	if err != nil {
		return err
	}
	if err := c.claimStart(p); err != nil {
		return err
	}
	if err := p.run(ctx); err != nil {
		err = fmt.Errorf("start %s: %w", p, err)
		p.startFailed(err)
		return err
	}
	c.sandbox.opts.Sink.Publish(ExecStarted{ContainerID: c.ID, ExecID: id, PID: c.PID()})
	p.mu.Lock()
	defer p.mu.Unlock()
	err = move(processNext, p.String(), &p.state, ProcessRunning)
	p.cond.Broadcast()
	go p.awaitExit(context.WithoutCancel(ctx))
	return err
}

// claimStart moves an exec to Starting, unless the container has ended: once
// that is known no exec starts any more, so that its exit is the last one.
func (c *Container) claimStart(p *Process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.initGone || (c.state != Running && c.state != Created) {
		return fmt.Errorf("start %s: the container is %s: %w", p, c.state, errdefs.ErrFailedPrecondition)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return move(processNext, p.String(), &p.state, ProcessStarting)
}

// run asks the guest for the process.
func (p *Process) run(ctx context.Context) error {
	s := p.container.sandbox
	if s.State() != Ready {
		return fmt.Errorf("sandbox %s is %s: %w", s.opts.ID, s.State(), errdefs.ErrUnavailable)
	}
	request, err := execRequest(p, s.dialect)
	if err != nil {
		return err
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	if err := s.change(ctx, "execcmd", p.token(), request); err != nil {
		return err
	}
	p.startCopying(context.WithoutCancel(ctx))
	return nil
}

// DeleteExec forgets a process that has ended or was never started, and
// returns how it ended.
func (c *Container) DeleteExec(ctx context.Context, id string) (Exit, error) {
	p, err := c.Process(id)
	if err != nil {
		return Exit{}, err
	}
	p.abandon()
	p.mu.Lock()
	err = move(processNext, p.String(), &p.state, ProcessDeleted)
	p.mu.Unlock()
	if err != nil {
		return Exit{}, err
	}
	p.release(ctx)
	c.mu.Lock()
	delete(c.execs, id)
	c.mu.Unlock()
	return p.Exit(), nil
}

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
	if signal == killSignal && execID == "" {
		p.mustEnd(ctx)
	}
	if err := c.sandbox.wake(ctx); err != nil {
		return err
	}
	if signal == killSignal {
		p.mu.Lock()
		p.killed = true
		p.mu.Unlock()
	}
	err = p.signal(ctx, signal, all)
	if signal == killSignal && execID == "" && errors.Is(err, context.DeadlineExceeded) {
		// A guest that does not even take SIGKILL is not worth keeping.
		c.sandbox.killVM(context.WithoutCancel(ctx))
		return nil
	}
	return err
}

// killable returns nil when the process exists in the guest. An exec that is
// being started is waited for: before that a signal could not reach it, and
// would be lost.
func (p *Process) killable(ctx context.Context) error {
	if p.ID == "" && p.container.State() == Creating {
		return fmt.Errorf("%s is being created: %w", p, errdefs.ErrFailedPrecondition)
	}
	if err := p.awaitStart(ctx); err != nil {
		return err
	}
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended already: %w", p, errdefs.ErrNotFound)
	default:
	}
	if _, session := p.ends(); session == nil {
		return fmt.Errorf("%s was not started: %w", p, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// awaitStart waits until an exec is not being started any more.
func (p *Process) awaitStart(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.state == ProcessStarting {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for the start of %s: %w", p, err)
		}
		p.cond.Wait()
	}
	return nil
}

// signal chooses the way that the signal goes: the session's own, which an
// original guest has too, or a command where that cannot say it.
func (p *Process) signal(ctx context.Context, number int, all bool) error {
	const sessionLimit = 31 // the frame has no room for real-time signals
	s := p.container.sandbox
	ctx, cancel := context.WithTimeout(ctx, s.opts.VM.CallTimeout)
	defer cancel()
	var err error
	switch way := p.legacyWay(); {
	case way == unstarted:
		err = p.endUnstarted(ctx, number)
	case p.ID == "" && (all || number >= sessionLimit || way == starting):
		_, err = s.call(ctx, "killcontainer", "", hyperstart.KillContainerRequest{
			Container: p.container.ID, Signal: number, AllProcesses: all,
		})
	case number >= sessionLimit:
		_, err = s.call(ctx, "signalprocess", "", hyperstart.SignalProcessRequest{
			Container: p.container.ID, Process: p.guestID(), Signal: number,
		})
	default:
		_, session := p.ends()
		err = fromGuest(session.Signal(ctx, number))
	}
	if err == nil {
		return nil
	}
	select {
	case <-p.done: // it ended meanwhile
		return fmt.Errorf("%s has ended already: %w", p, errdefs.ErrNotFound)
	default:
		return fmt.Errorf("signal %d to %s: %w", number, p, err)
	}
}

// legacyWay is how far an original guest is with the first process of a
// container, for which creating and starting are one command.
func (p *Process) legacyWay() way {
	if p.ID != "" || p.container.sandbox.dialect == hyperstart.DialectCCv2 {
		return running
	}
	switch p.container.State() {
	case Creating, Created:
		return unstarted
	case Starting: // a command of its own comes behind the one that starts it
		return starting
	case Running, Pausing, Paused, Resuming, Exited, Deleted:
	}
	return running
}

type way uint8

const (
	running   way = iota // as in a ccv2 guest
	unstarted            // the guest does not know of it
	starting             // the command is under way
)

// endUnstarted ends a process of which an original guest does not know yet. The
// proxy answers the two signals that end every process with an exit.
func (p *Process) endUnstarted(ctx context.Context, number int) error {
	const sigterm = 15
	if number != killSignal && number != sigterm {
		return fmt.Errorf("not started: %w", errdefs.ErrFailedPrecondition)
	}
	p.mu.Lock()
	p.ended = number
	p.mu.Unlock()
	_, session := p.ends()
	return fromGuest(session.Signal(ctx, number))
}
