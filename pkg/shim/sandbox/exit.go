package sandbox

import (
	"context"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

const (
	// drainStall is how long a reader of output may take nothing before the
	// exit is reported all the same. The output stays until Delete.
	drainStall = 2 * time.Second
	// execsLeft bounds the wait of a container's exit for its execs, which the
	// guest ends together with the first process.
	execsLeft = 10 * time.Second
)

// awaitExit reports the end of a process, once. It starts when the process was
// created, so that a container that is killed before its start exits too.
func (p *Process) awaitExit(ctx context.Context) {
	exit := Exit{Status: p.awaitStatus(ctx), At: time.Now()}
	close(p.ending)
	c := p.container
	if exit.Status == statusKilled {
		c.settleOOM(ctx)
	}
	if p.ID == "" {
		c.mu.Lock()
		c.initGone = true
		for c.state == Starting { // the start is published before the exit
			c.cond.Wait()
		}
		c.mu.Unlock()
		c.waitExecs()
	} else {
		p.mu.Lock()
		for p.state == ProcessStarting {
			p.cond.Wait()
		}
		p.mu.Unlock()
	}
	p.drain()
	p.finish(ctx, exit, true)
}

// awaitStatus waits for the end of a process: of its session, or told ahead of
// output that nobody takes.
func (p *Process) awaitStatus(ctx context.Context) uint32 {
	_, session := p.ends()
	select {
	case status := <-p.early:
		return uint32(status)
	case <-session.Done():
		return p.exitStatus(ctx, session)
	}
}

// settleOOM waits until events that the guest sent before are here: events and
// exits take different ports, and an exit for want of memory must not overtake
// the event that says so.
func (c *Container) settleOOM(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainStall)
	defer cancel()
	if c.sandbox.State() != Ready {
		return
	}
	if _, err := c.sandbox.call(ctx, "ping", "", nil); err != nil {
		log.G(ctx).WithError(err).WithField("container", c.ID).Debug("look for oom event")
	}
}

// exitStatus is the guest's word, or what can be said without it.
func (p *Process) exitStatus(ctx context.Context, session *proxy.Session) uint32 {
	status, err := session.Exit()
	if err != nil {
		log.G(ctx).WithError(err).WithField("process", p.String()).Warn("exit status lost with the vm")
		return p.container.sandbox.lostStatus()
	}
	p.mu.Lock()
	killed, ended := p.killed, p.ended
	p.mu.Unlock()
	if ended != 0 && status == 0 {
		return 128 + uint32(ended)
	}
	dialect := p.container.sandbox.dialect
	if killed && status == 0 && (dialect == hyperstart.DialectHyperhq || dialect == hyperstart.DialectClearC) {
		return statusKilled // the C agents report 0 for every signal
	}
	return uint32(status)
}

// lostStatus is the exit status of processes that were lost with the VM. It
// waits until the reason is known: the connection to the guest ends before
// anybody has looked at how the VMM ended.
func (s *Sandbox) lostStatus() uint32 {
	select {
	case <-s.ended:
	case <-time.After(execsLeft): // a session that was lost alone; its process may still run
		return statusUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oomKilled {
		return statusKilled
	}
	return statusUnknown
}

// finish makes the exit final and announces it, in this order: disk, state,
// event. Only the first call counts.
func (p *Process) finish(ctx context.Context, exit Exit, announce bool) {
	c := p.container
	p.mu.Lock()
	if !p.exit.At.IsZero() {
		p.mu.Unlock()
		return
	}
	p.exit = exit
	p.state = ProcessExited
	p.cond.Broadcast()
	p.mu.Unlock()
	if p.ID == "" {
		err := bundle.SaveExit(c.Bundle, bundle.Exit{Status: exit.Status, At: exit.At, PID: c.PID()})
		if err != nil {
			log.G(ctx).WithError(err).WithField("container", c.ID).Error("record exit status")
		}
		c.mu.Lock()
		c.state = Exited
		c.cond.Broadcast()
		c.mu.Unlock()
	}
	if announce {
		c.sandbox.opts.Sink.Publish(TaskExited{
			ContainerID: c.ID, ExecID: p.ID, PID: c.PID(), Status: exit.Status, At: exit.At,
		})
	}
	close(p.done)
}

// startFailed ends a process that never ran. There is no event: nobody was
// told of a start.
func (p *Process) startFailed(err error) {
	p.mu.Lock()
	p.copying = false // there is no output to wait for
	p.mu.Unlock()
	p.finish(context.Background(), Exit{Status: exitStatusOf(err), At: time.Now()}, false)
}

// abandon ends an exec that is deleted before anybody has started it, so that
// nobody waits for its end for ever.
func (p *Process) abandon() {
	p.mu.Lock()
	unused := p.ID != "" && p.state == ProcessCreated
	if unused {
		p.state, p.exit = ProcessExited, Exit{At: time.Now()}
	}
	p.mu.Unlock()
	if unused {
		close(p.done)
	}
}

// drainMost bounds in bytes what a process that has ended may still have on
// its way: buffers of pipes, of the agent, and one window at each hop. A guest
// that goes on sending must not keep the exit from being reported.
const drainMost = 16 << 20

// drain waits until containerd has all output, as long as that makes progress.
func (p *Process) drain() {
	p.mu.Lock()
	copying := p.copying
	p.mu.Unlock()
	if !copying {
		return
	}
	timer := time.NewTicker(drainStall)
	defer timer.Stop()
	last := p.moved.Load()
	for most := last + drainMost; last < most; {
		select {
		case <-p.copied:
			return
		case <-timer.C:
			now := p.moved.Load()
			if now == last {
				return
			}
			last = now
		}
	}
}

// waitExecs waits until the container's other processes have been reported.
func (c *Container) waitExecs() {
	deadline := time.NewTimer(execsLeft)
	defer deadline.Stop()
	c.mu.Lock()
	var running []*Process
	for _, p := range c.execs {
		if p.live() {
			running = append(running, p)
		}
	}
	c.mu.Unlock()
	for _, p := range running {
		select {
		case <-p.done:
		case <-deadline.C:
			return
		}
	}
}

// vmLost waits until the ends of all processes were reported: their sessions
// ended with the connection to the guest.
func (c *Container) vmLost(ctx context.Context) {
	c.mu.Lock()
	all := []*Process{c.init}
	for _, p := range c.execs {
		all = append(all, p)
	}
	creating := c.state == Creating
	c.mu.Unlock()
	if creating {
		return // Create fails by itself and is not waited for
	}
	ctx, cancel := context.WithTimeout(ctx, 2*drainStall+execsLeft)
	defer cancel()
	for _, p := range all {
		if !p.live() {
			continue
		}
		if err := p.Wait(ctx); err != nil {
			log.G(ctx).WithError(err).Error("report exit")
		}
	}
}

// live reports whether the end of the process is yet to be reported: it has a
// session, or is about to get one, and nobody has been told of its end.
func (p *Process) live() bool {
	select {
	case <-p.done:
		return false
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session != nil || p.state == ProcessStarting
}

// release closes what a process holds on the host. Output that is still under
// way is given some time. It is idempotent.
func (p *Process) release(ctx context.Context) {
	p.drain()
	streams, session := p.ends()
	if streams != nil {
		if err := streams.Close(); err != nil {
			log.G(ctx).WithError(err).WithField("process", p.String()).Warn("close streams")
		}
	}
	if session != nil {
		_ = session.Close() // a lost connection is closed already
	}
}

// token names the process's session in commands that start it.
func (p *Process) token() string {
	_, session := p.ends()
	return session.Token()
}
