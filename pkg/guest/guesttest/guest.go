package guesttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/condwait"
)

// Options say what a guest does beside what it is asked. All may be left out.
type Options struct {
	// Events get what the test emits.
	Events client.Events
	// OnCall is called before each call is carried out, other than Dialect and
	// Close; its error is the call's. It may block.
	OnCall func(Call) error
	// PowerOff is called by StopPod.
	PowerOff func()
}

// Call is a call of a method of [client.Guest].
type Call struct {
	Method    string // such as "StartContainer"
	Container string // "" where the method has none
	ExecID    string // "" where the method has none, and for the init process
	Signal    int    // of Signal
}

// String is such as "Signal c/exec1 9".
func (c Call) String() string {
	var b strings.Builder
	b.WriteString(c.Method)
	if c.Container != "" {
		b.WriteString(" " + c.Container)
	}
	if c.ExecID != "" {
		b.WriteString("/" + c.ExecID)
	}
	if c.Signal != 0 {
		fmt.Fprintf(&b, " %d", c.Signal)
	}
	return b.String()
}

// Guest is a guest in memory.
type Guest struct {
	opts Options

	mu         sync.Mutex // guards the fields below
	cond       *sync.Cond // on mu; signals calls and processes
	calls      []Call
	faults     map[string]fault
	containers map[string]*container
	forwards   map[uint16]*Process
	sessions   []*session
	network    Network
	pod        *client.Pod // nil before StartPod
	stats      hyperstart.Stats
	behind     time.Duration // the clock is
	lastPID    int
	lost       chan struct{} // closed by Lose
	lostErr    error         // valid once lost is closed
}

// Network is what SetInterface and SetRoutes said last.
type Network struct {
	Interfaces []hyperstart.Interface // by MAC, in the order of the first calls
	Routes     hyperstart.Routes
}

// fault is what becomes of a call instead of its work.
type fault struct {
	err     error
	release chan struct{} // the call hangs until it is closed; nil for a failure
}

var _ interface {
	client.Guest
	client.Forwarder
	client.Beneath
	client.Clock
	client.Resolver
} = (*Guest)(nil)

// ResolvesBeneath implements [client.Beneath].
func (g *Guest) ResolvesBeneath() bool { return true }

// New returns a guest that is ready.
func New(opts Options) *Guest {
	g := &Guest{
		opts: opts, faults: make(map[string]fault), containers: make(map[string]*container),
		forwards: make(map[uint16]*Process), lastPID: 100, lost: make(chan struct{}),
	}
	g.cond = sync.NewCond(&g.mu)
	return g
}

// SetEvents replaces the callbacks of the options.
func (g *Guest) SetEvents(e client.Events) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opts.Events = e
}

// OnCall replaces the callback of the options.
func (g *Guest) OnCall(do func(Call) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opts.OnCall = do
}

// Fail makes every call of a method fail with err; nil ends that.
func (g *Guest) Fail(method string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults[method] = fault{err: err}
}

// Hang makes every call of a method hang until release is called, its context
// ends or the guest is lost. What was released is carried out.
func (g *Guest) Hang(method string) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := fault{release: make(chan struct{})}
	g.faults[method] = f
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.faults[method].release == f.release {
			delete(g.faults, method)
		}
		close(f.release)
	})
}

// Lose ends the connection to the guest: all sessions end without a status, and
// all calls fail from now on.
func (g *Guest) Lose(err error) {
	g.mu.Lock()
	if g.lostErr != nil {
		g.mu.Unlock()
		return
	}
	g.lostErr = err
	close(g.lost)
	sessions, lost := slices.Clone(g.sessions), g.opts.Events.Lost
	g.mu.Unlock()
	for _, s := range sessions {
		s.end(0, fmt.Errorf("%w: %w", client.ErrSessionLost, err))
	}
	if lost != nil {
		lost(err)
	}
}

// OOM emits the event that a process of the container was killed.
func (g *Guest) OOM(container string) {
	g.mu.Lock()
	emit := g.opts.Events.OOM
	g.mu.Unlock()
	if emit != nil {
		emit(container)
	}
}

// ExitEarly emits the event that a process has exited whose output is not read.
func (g *Guest) ExitEarly(container, execID string, status uint8) {
	g.mu.Lock()
	emit := g.opts.Events.Exited
	g.mu.Unlock()
	if emit != nil {
		emit(container, execID, status)
	}
}

// Calls returns all calls so far, as text.
func (g *Guest) Calls() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for _, c := range g.calls {
		all = append(all, c.String())
	}
	return all
}

// WaitCall waits until a call, as text, has come in.
func (g *Guest) WaitCall(ctx context.Context, call string) error {
	return g.wait(ctx, func() bool {
		return slices.ContainsFunc(g.calls, func(c Call) bool { return c.String() == call })
	})
}

// Containers returns the ids of all containers in the guest, sorted.
func (g *Guest) Containers() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := make([]string, 0, len(g.containers))
	for id := range g.containers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Network returns the network that was set.
func (g *Guest) Network() Network {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Network{Interfaces: slices.Clone(g.network.Interfaces), Routes: g.network.Routes}
}

// Pod returns what StartPod said, nil before.
func (g *Guest) Pod() *client.Pod {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pod
}

// SetBehind sets by how much the guest's clock is behind the host's.
func (g *Guest) SetBehind(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.behind = d
}

// Behind is by how much the guest's clock is behind the host's.
func (g *Guest) Behind() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.behind
}

// AdjustClock implements [client.Clock]. What is to be done slowly is done at once.
func (g *Guest) AdjustClock(ctx context.Context, a hyperstart.AdjustClockRequest) (time.Time, error) {
	method := "AdjustClock"
	switch {
	case a.Step != 0:
		method = "StepClock"
	case a.Slew != 0:
		method = "SlewClock"
	}
	if err := g.enter(ctx, Call{Method: method}); err != nil {
		return time.Time{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.behind -= time.Duration(a.Step + a.Slew)
	return time.Now().Add(-g.behind), nil
}

// DropCaches forgets nothing: there is nothing.
func (g *Guest) DropCaches(ctx context.Context, pages bool) error {
	method := "DropCaches"
	if pages {
		method = "DropPages"
	}
	return g.enter(ctx, Call{Method: method})
}

// SetStats sets what Stats answers for every container.
func (g *Guest) SetStats(stats hyperstart.Stats) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats = stats
}

// wait waits until cond, which runs under g.mu, holds.
func (g *Guest) wait(ctx context.Context, cond func() bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return condwait.Until(ctx, g.cond, cond)
}

// enter notes a call and returns its error, if it is to fail.
func (g *Guest) enter(ctx context.Context, call Call) error {
	g.mu.Lock()
	g.calls = append(g.calls, call)
	g.cond.Broadcast()
	f, onCall := g.faults[call.Method], g.opts.OnCall
	g.mu.Unlock()
	if onCall != nil {
		if err := onCall(call); err != nil {
			return err
		}
	}
	if f.release != nil {
		select {
		case <-f.release:
		case <-g.lost:
		case <-ctx.Done():
			return fmt.Errorf("%s: no answer from the guest: %w", call.Method, ctx.Err())
		}
	}
	select {
	case <-g.lost:
		return fmt.Errorf("%s: %w", call.Method, errors.Join(g.lostErr, errdefs.ErrUnavailable))
	default:
		return f.err
	}
}

// Dialect implements [client.Guest].
func (g *Guest) Dialect() hyperstart.Dialect { return hyperstart.DialectCCv2 }

// Close implements [client.Guest].
func (g *Guest) Close() error { return nil }
