package agent

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// process is one process that the host asked for: the init of a container or
// an exec.
type process struct {
	id            string
	container     *container
	stdio, stderr uint64 // sequence numbers; stderr is 0 with a terminal
	pid           int    // set before the process is visible to others

	streams *stdio
	in      *stdin
	outputs []*output
	pumps   sync.WaitGroup

	// reaped is closed when the process has ended, sent when the host was told
	// of that behind all output. told says that it was told, perhaps ahead.
	reaped chan struct{}
	sent   chan struct{}
	told   atomic.Bool
}

// newProcess claims the sequence numbers of p. The caller must call abandon or
// run.
func (a *Agent) newProcess(c *container, id string, spec *hyperstart.Process, terminal bool) (*process, error) {
	p := &process{
		id: id, container: c, stdio: spec.Stdio, stderr: spec.Stderr,
		reaped: make(chan struct{}), sent: make(chan struct{}),
	}
	if terminal {
		p.stderr = 0
	} else if p.stderr == 0 {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "process %s: a sequence number for stderr is needed without a terminal", id)
	}
	p.in = newStdin(terminal, func(n int) {
		if err := a.tty.grant(p.stdio, n); err != nil {
			console.Fatal(err)
		}
	})
	out, errs, err := a.tty.register(p.stdio, p.stderr, p.in)
	if err != nil {
		return nil, err
	}
	if p.streams, err = newStdio(terminal, p.stdio); err != nil {
		a.tty.unregister(p.stdio, p.stderr)
		return nil, err
	}
	p.outputs = []*output{{seq: p.stdio, credit: out, write: a.tty.write}}
	if errs != nil {
		p.outputs = append(p.outputs, &output{seq: p.stderr, credit: errs, write: a.tty.write})
	}
	return p, nil
}

// abandon gives back what newProcess took, for a process that was not started.
func (a *Agent) abandon(p *process) {
	a.tty.unregister(p.stdio, p.stderr)
	p.in.close()
	p.streams.close()
	close(p.sent)
}

// run starts the pumps and the goroutine that reports the end.
func (a *Agent) run(p *process, exit <-chan runc.Exit) {
	p.outputs[0].file = p.streams.out
	if len(p.outputs) > 1 {
		p.outputs[1].file = p.streams.err
	}
	go func() {
		defer console.Guard()
		p.in.pump(p.streams.in)
		// The end of the input is what the process sees as end of file. A
		// terminal's master serves the output as well and stays open.
		if !p.streams.terminal {
			p.streams.in.Close()
		}
	}()
	for _, o := range p.outputs {
		p.pumps.Go(func() { defer console.Guard(); o.pump() })
	}
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
		if err := killCgroup(c.cgroup); err != nil {
			console.Logf("container %s: %v", c.id, err)
		}
		a.awaitExecs(c)
		for _, o := range p.outputs {
			o.stopSoon()
		}
	}
	a.awaitOutput(p, uint8(e.Status))
	p.in.close()
	a.oom.check(c.id)
	a.tty.unregister(p.stdio, p.stderr)
	p.streams.close()
	p.told.Store(true) // before the host can use the id again
	if err := a.tty.sendExit(p.stdio, uint8(e.Status)); err != nil {
		console.Fatal(err)
	}
	c.forget(p)
	close(p.sent)
}

// exitDelay is how long the end of a process waits for a host that does not
// take its output, before it is told ahead of that output.
const exitDelay = 2 * drainDelay

// heldDelay is how long the end of a stream may take behind the end of an exec,
// emulated and under load, before a descendant is taken to keep it open.
const heldDelay = 250 * time.Millisecond

// awaitOutput waits until all output is with the host. When that takes long
// the end is told meanwhile: whoever waits for it must not depend on whoever
// should read. It is told soon when descendants of an exec keep the streams open:
// what they write goes on, until they end or the container does.
func (a *Agent) awaitOutput(p *process, status uint8) {
	sent := make(chan struct{})
	go func() {
		defer console.Guard()
		p.pumps.Wait()
		close(sent)
	}()
	delay := time.NewTimer(exitDelay)
	defer delay.Stop()
	held := time.NewTimer(heldDelay)
	defer held.Stop()
	for waiting := true; waiting; {
		select {
		case <-sent:
			return
		case <-held.C:
			waiting = p.id == hyperstart.InitProcess || p.unsent()
		case <-delay.C:
			waiting = false
		}
	}
	p.told.Store(true)
	a.oom.check(p.container.id)
	a.sendEvent(hyperstart.EventMessage{
		Kind: hyperstart.EventExited, Container: p.container.id, Process: p.id, Status: status,
	})
	<-sent
}

// unsent reports whether there is output that the host has not got yet.
func (p *process) unsent() bool {
	return slices.ContainsFunc(p.outputs, func(o *output) bool { return o.sending.Load() || o.pending() > 0 })
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
			late.discard()
		}
		<-exec.sent
	}
}

// discard gives up output that the host does not take, so that the container
// can be removed.
func (p *process) discard() {
	for _, o := range p.outputs {
		o.credit.close()
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
