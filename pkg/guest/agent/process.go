package agent

import (
	"fmt"
	"sync/atomic"
	"time"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/streams"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// process is one process that the host asked for: the init of a container or
// an exec.
type process struct {
	id        string
	container *container
	io        *streams.IO
	pid       int // set before the process is visible to others

	// reaped is closed when the process has ended, sent when the host was told
	// of that behind all output. told says that it was told, perhaps ahead.
	reaped chan struct{}
	sent   chan struct{}
	told   atomic.Bool
}

// newProcess opens the streams of p. The caller must call abandon or run.
func (a *Agent) newProcess(c *container, id string, spec *hyperstart.Process, terminal bool) (*process, error) {
	io, err := a.tty.Open(streams.Options{
		Stdio: spec.Stdio, Stderr: spec.Stderr, Terminal: terminal, Rows: spec.Rows, Columns: spec.Columns,
	})
	if err != nil {
		return nil, fmt.Errorf("process %s: %w", id, err)
	}
	return &process{id: id, container: c, io: io, reaped: make(chan struct{}), sent: make(chan struct{})}, nil
}

// abandon releases what newProcess made, for a process that was not started.
func (a *Agent) abandon(p *process) {
	p.io.Abort()
	close(p.sent)
}

// run starts the streams and the goroutine that reports the end.
func (a *Agent) run(p *process, exit <-chan runc.Exit) {
	p.io.Start()
	go func() {
		defer console.Guard()
		a.finish(p, <-exit)
	}()
}

// finish reports the end of p after its output; the end of an init comes after
// those of the execs in its container.
func (a *Agent) finish(p *process, e runc.Exit) {
	c := p.container
	c.exited(p)
	close(p.reaped)
	if p.id == hyperstart.InitProcess {
		// Without its init a container is over. The kernel sees to that only
		// when the container has a pid namespace of its own.
		if err := c.group.Kill(); err != nil {
			console.Logf("container %s: %v", c.id, err)
		}
		a.awaitExecs(c)
		p.io.StopSoon()
	}
	a.awaitOutput(p, uint8(e.Status))
	a.oom.Check(c.id)
	p.io.Close()
	p.told.Store(true) // before the host can use the id again
	p.io.SendExit(uint8(e.Status))
	c.forget(p)
	close(p.sent)
}

// exitDelay is how long the end of a process waits for a host that does not
// take its output, before it is told ahead of that output.
const exitDelay = 2 * streams.DrainDelay

// heldDelay is how long the end of a stream may take behind the end of an exec,
// emulated and under load, before a descendant is taken to keep it open.
const heldDelay = 250 * time.Millisecond

// awaitOutput waits until all output is with the host. When that takes long
// the end is told meanwhile: whoever waits for it must not depend on whoever
// should read. It is told soon when descendants of an exec keep the streams open:
// what they write goes on, until they end or the container does.
func (a *Agent) awaitOutput(p *process, status uint8) {
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
	p.told.Store(true)
	a.oom.Check(p.container.id)
	a.sendEvent(hyperstart.EventMessage{
		Kind: hyperstart.EventExited, Container: p.container.id, Process: p.id, Status: status,
	})
	<-p.io.Drained()
}

// execGrace is how long an init's end waits for a host that does not take the
// output of an exec; then that output is lost, or one stuck client could keep
// a dead container alive.
const execGrace = 10 * time.Second

func (a *Agent) awaitExecs(c *container) {
	grace := time.NewTimer(execGrace)
	defer grace.Stop()
	for _, exec := range c.execs() {
		select {
		case <-exec.sent:
			continue
		case <-grace.C:
		}
		for _, late := range c.execs() {
			late.io.Discard()
		}
		<-exec.sent
	}
}

// alive reports whether the process has not been reaped.
func (p *process) alive() bool {
	select {
	case <-p.reaped:
		return false
	default:
		return true
	}
}

// signal sends a signal to the process.
func (a *Agent) signal(p *process, sig int) error {
	if !p.alive() {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "process %s of container %s: %w", p.id, p.container.id, errExited)
	}
	if err := a.reaper.signal(p.pid, unix.Signal(sig)); err != nil {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "process %s of container %s: %w", p.id, p.container.id, err)
	}
	return nil
}
