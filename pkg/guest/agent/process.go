package agent

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/streams"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// process is one process that the host asked for: the init process of a container
// or an exec process.
type process struct {
	id        string
	container *container
	io        *streams.IO
	child     *ociruntime.Child // set before the process is visible to others

	state    processState  // guarded by container.mu
	exited   chan struct{} // closed in processExited
	finished chan struct{} // closed in processFinished
}

// newProcess opens the streams of a process. The caller must call abort or run.
func (s *containers) newProcess(c *container, id string, spec *hyperstart.Process, terminal bool) (*process, error) {
	io, err := s.tty.Open(streams.Options{
		Stdio: spec.Stdio, Stderr: spec.Stderr, Terminal: terminal, Rows: spec.Rows, Columns: spec.Columns,
	})
	if err != nil {
		return nil, fmt.Errorf("process %s: %w", id, err)
	}
	return &process{id: id, container: c, io: io, exited: make(chan struct{}), finished: make(chan struct{})}, nil
}

// abort releases what newProcess made, for a process that was not started.
func (p *process) abort() {
	p.io.Abort()
	p.to(processFinished)
}

// run starts the streams and the goroutine that reports the end.
func (p *process) run() {
	p.io.Start()
	p.container.owner.background.Go(func() {
		defer console.Guard()
		p.finish(uint8(p.child.Wait()))
	})
}

// finish reports the end of p after its output; the end of an init process comes
// after those of the exec processes in its container.
func (p *process) finish(status uint8) {
	c := p.container
	p.to(processExited)
	if p.id == hyperstart.InitProcess {
		// Without its init process a container is over. The kernel sees to that
		// only when the container has a pid namespace of its own.
		if err := c.group.Kill(); err != nil {
			console.Logf("container %s: %v", c.id, err)
		}
		c.awaitExecs()
		p.io.StopSoon()
	}
	p.awaitOutput(status)
	c.owner.oom.Check(c.id)
	p.io.Close()
	p.to(processReported) // before the host can use the id again
	p.io.SendExit(status)
	c.release(p)
	p.to(processFinished)
}

// exitDelay is how long the end of a process waits for a host that does not
// take its output, before it is reported ahead of that output.
const exitDelay = 2 * streams.DrainDelay

// heldDelay is how long the end of a stream may take after the end of an exec
// process, emulated and under load, before a descendant is taken to keep it open.
const heldDelay = 250 * time.Millisecond

// awaitOutput waits until all output is with the host. When that takes long the
// end is reported meanwhile: who waits for it must not depend on who should read.
// It is reported soon when descendants of an exec process keep the streams open:
// what they write is still sent, until they end or the container does.
func (p *process) awaitOutput(status uint8) {
	delay := time.NewTimer(exitDelay)
	defer delay.Stop()
	held := time.NewTimer(heldDelay)
	defer held.Stop()
	for waiting := true; waiting; {
		select {
		case <-p.io.Drained():
			return
		case <-held.C:
			waiting = p.id == hyperstart.InitProcess || p.io.Unsent()
		case <-delay.C:
			waiting = false
		}
	}
	c := p.container
	p.to(processReported)
	c.owner.oom.Check(c.id)
	c.owner.notify(hyperstart.EventMessage{Kind: hyperstart.EventExited, Container: c.id, Process: p.id, Status: status})
	<-p.io.Drained()
}

// execGrace is how long an init process's end waits for a host that does not take
// the output of an exec process; then that output is lost, or one stuck client
// could keep a dead container alive.
const execGrace = 10 * time.Second

func (c *container) awaitExecs() {
	grace := time.NewTimer(execGrace)
	defer grace.Stop()
	for _, exec := range c.execs() {
		select {
		case <-exec.finished:
			continue
		case <-grace.C:
		}
		for _, late := range c.execs() {
			late.io.Discard()
		}
		<-exec.finished
	}
}

// alive reports whether the process has not been reaped.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal sends a signal to the process.
func (p *process) signal(sig unix.Signal) error {
	err := ociruntime.ErrExited
	if p.alive() {
		err = p.child.Signal(sig)
	}
	if err != nil {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "process %s of container %s: %w", p.id, p.container.id, err)
	}
	return nil
}
