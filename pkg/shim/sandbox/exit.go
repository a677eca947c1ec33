package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/streams"
)

// execsLimit bounds the wait of a container's exit for its execs, which the
// guest ends together with the init process.
const execsLimit = 10 * time.Second

// processEnd is the end of a process: the one place that has it.
type processEnd struct {
	early chan uint8    // capacity 1; exit status of a process whose output nobody reads
	seen  chan struct{} // closed when the guest has reported the end, or cannot any more
	final chan struct{} // closed when exit is final and was announced

	mu       sync.Mutex // guards the fields below
	exit     Exit
	deadline bool // SIGKILL was sent, whose effect is waited for
}

func newProcessEnd() processEnd {
	return processEnd{early: make(chan uint8, 1), seen: make(chan struct{}), final: make(chan struct{})}
}

// isFinal reports whether the end was reported.
func (e *processEnd) isFinal() bool {
	select {
	case <-e.final:
		return true
	default:
		return false
	}
}

// set sets the exit, unless there is one.
func (e *processEnd) set(exit Exit) (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if first = e.exit.At.IsZero(); first {
		e.exit = exit
	}
	return first
}

// sentKill reports whether SIGKILL was sent.
func (e *processEnd) sentKill() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.deadline
}

// claimDeadline reports whether the caller is the first one.
func (e *processEnd) claimDeadline() (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first = !e.deadline
	e.deadline = true
	return first
}

// Exit is how the process ended; the zero value while it has not.
func (p *Process) Exit() Exit {
	p.end.mu.Lock()
	defer p.end.mu.Unlock()
	return p.end.exit
}

// Wait waits until the process has ended.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.end.final:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", p, ctx.Err())
	}
}

// awaitExit reports the end of a process, once. It starts when the process was
// created, so that a container that is killed before its start exits too.
func (p *Process) awaitExit() {
	exit := Exit{Status: p.awaitStatus(), At: time.Now()}
	close(p.end.seen)
	c := p.container
	if exit.Status == statusKilled {
		p.flushOOMEvents()
	}
	if p.ID == "" {
		c.mu.Lock()
		c.status.initGone = true
		for c.state == ContainerStarting { // the start is published before the exit
			c.cond.Wait()
		}
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.sandbox.ctx, execsLimit)
		_ = awaitExits(ctx, c.List()[1:]) // it has waited long enough
		cancel()
	} else {
		p.mu.Lock()
		for p.state == ProcessStarting {
			p.cond.Wait()
		}
		p.mu.Unlock()
	}
	p.io.Drain()
	p.finish(exit, true)
}

// awaitStatus waits for the end of a process: of its session, or reported ahead
// of output that nobody reads.
func (p *Process) awaitStatus() uint32 {
	session := p.io.Session()
	select {
	case status := <-p.end.early:
		return uint32(status)
	case <-session.Done():
	}
	status, err := session.Exit()
	if err != nil {
		log.G(p.container.sandbox.ctx).WithError(err).WithField("process", p.String()).Warn("exit status lost with the vm")
		return p.lostStatus()
	}
	return uint32(status)
}

// flushOOMEvents waits until events that the guest sent before are here: events
// and exits take different ports, and an exit out of memory must not overtake
// the event that says so.
func (p *Process) flushOOMEvents() {
	c := p.container
	ctx, cancel := context.WithTimeout(c.sandbox.ctx, streams.DrainStall)
	defer cancel()
	if !c.sandbox.isReady() {
		return
	}
	if err := c.sandbox.machine.Guest().Sync(ctx); err != nil {
		log.G(ctx).WithError(err).WithField("container", c.ID).Debug("wait for oom event")
	}
}

// lostStatus is the exit status of a process that was lost with the VM. It
// waits until the reason is known: the connection to the guest ends before it is
// known how the VMM ended. A container whose SIGKILL ended the VM was killed, and
// its execs with it.
func (p *Process) lostStatus() uint32 {
	s := p.container.sandbox
	select {
	case <-s.end.known:
	case <-time.After(execsLimit): // a session that was lost alone; its process may still run
		return statusUnknown
	}
	if s.end.oomKilled || errors.Is(s.end.cause, ErrUnkillable) && p.container.init.end.sentKill() {
		return statusKilled
	}
	return statusUnknown
}

// finish makes the exit final and announces it, in this order: disk, state,
// event. Only the first call counts.
func (p *Process) finish(exit Exit, announce bool) {
	if !p.end.set(exit) {
		return
	}
	c := p.container
	if p.ID == "" {
		err := bundle.SaveExit(c.Bundle, bundle.Exit{Status: exit.Status, At: exit.At, PID: c.PID()})
		if err != nil {
			log.G(c.sandbox.ctx).WithError(err).WithField("container", c.ID).Error("record exit status")
		}
		c.mu.Lock()
		err = c.toLocked(ContainerExited)
		c.mu.Unlock()
		logImpossible(p, err)
	}
	p.mu.Lock()
	err := p.toLocked(ProcessExited)
	p.mu.Unlock()
	logImpossible(p, err)
	disappear(p) // who sees the exit may look for the pid
	if announce {
		c.sandbox.publish(TaskExited{
			ContainerID: c.ID, ExecID: p.ID, PID: p.PID(), Status: exit.Status, At: exit.At,
		})
	}
	close(p.end.final)
}

// logImpossible logs an exit in a state that has none, which is a defect in this
// package: the exit is reported nevertheless.
func logImpossible(p *Process, err error) {
	if err != nil {
		log.G(p.container.sandbox.ctx).WithError(err).WithField("process", p.String()).Error("exit in a state that has none")
	}
}

// startFailed ends a process that never ran, and the execs that ran beside an init
// process. There is no event of it: its start was not announced.
func (p *Process) startFailed(err error) {
	if execs := p.container.List()[1:]; p.ID == "" && slices.ContainsFunc(execs, (*Process).live) {
		ctx, cancel := context.WithTimeout(p.container.sandbox.ctx, execsLimit)
		_ = errors.Join(p.signal(ctx, sigkill, true), awaitExits(ctx, execs)) // the first error says more
		cancel()
	}
	status := uint32(statusUnknown)
	if s, ok := client.ExitStatus(err); ok {
		status = uint32(s)
	}
	p.io.NeverStarted()
	p.finish(Exit{Status: status, At: time.Now()}, false)
}

// abandon ends an exec that is deleted before it was started, so that nobody
// waits for its end indefinitely.
func (p *Process) abandon() {
	p.mu.Lock()
	unused := p.ID != "" && p.state == ProcessCreated && p.toLocked(ProcessExited) == nil
	p.mu.Unlock()
	if unused && p.end.set(Exit{At: time.Now()}) {
		close(p.end.final)
	}
}

// awaitExits waits until the ends of processes were reported.
func awaitExits(ctx context.Context, processes []*Process) error {
	var errs []error
	for _, p := range processes {
		if p.live() {
			errs = append(errs, p.Wait(ctx))
		}
	}
	return errors.Join(errs...)
}

// live reports whether the end of the process is yet to be reported: it has a
// session, or is about to get one, and its end was not announced.
func (p *Process) live() bool {
	if p.end.isFinal() {
		return false
	}
	return p.io.Session() != nil || p.State() == ProcessStarting
}
