package client

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// maxMutations is how many commands that take long run at once: half of what a
// ccv2 guest works on before it refuses more. The rest is for signals and
// questions.
const maxMutations = 32

// caller runs commands in the guest. It is what both guests have in common.
type caller struct {
	frames  *Frames
	vm      string
	dialect hyperstart.Dialect
	timeout time.Duration
	gate    func() error
	warn    func(string)

	mutations  chan struct{} // has room for one element per mutation
	podStarted atomic.Bool
}

func newCaller(o Options, dialect hyperstart.Dialect) *caller {
	c := &caller{
		frames: NewFrames(o.VM, o.Server.Pipe), vm: o.VM, dialect: dialect,
		timeout: o.CallTimeout, gate: o.Gate, warn: o.Warn,
		mutations: make(chan struct{}, maxMutations),
	}
	if c.gate == nil {
		c.gate = func() error { return nil }
	}
	if c.warn == nil {
		c.warn = func(string) {}
	}
	return c
}

// Dialect implements [Guest].
func (c *caller) Dialect() hyperstart.Dialect { return c.dialect }

// bounded is ctx with the limit of one command.
func (c *caller) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout <= 0 || !c.podStarted.Load() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// open returns why the command cannot be sent now.
func (c *caller) open(name string) error {
	if !c.podStarted.Load() {
		return nil
	}
	if err := c.gate(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// call runs one command in the guest.
func (c *caller) call(ctx context.Context, name, token string, data any) ([]byte, error) {
	if err := c.open(name); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	answer, err := c.frames.Hyper(ctx, name, token, data)
	return answer, Classify(err)
}

// mutate is call for a command that changes the guest and may take long. It
// waits for its turn. From then on it is waited for even when its caller has
// gone: the guest carries it out in any case, and what is known of the
// container must be what the guest has made of it.
func (c *caller) mutate(ctx context.Context, name, token string, data any) error {
	if err := c.turn(ctx, name); err != nil {
		return err
	}
	defer c.endTurn()
	_, err := c.call(context.WithoutCancel(ctx), name, token, data)
	return err
}

// turn waits until fewer than maxMutations run. endTurn follows.
func (c *caller) turn(ctx context.Context, name string) error {
	select {
	case c.mutations <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: wait for %d earlier commands in the guest: %w", name, maxMutations, ctx.Err())
	}
}

func (c *caller) endTurn() { <-c.mutations }

// Sync implements [Guest].
func (c *caller) Sync(ctx context.Context) error {
	_, err := c.call(ctx, "ping", "", nil)
	return err
}

// startPod sends STARTPOD. From then on commands have limits.
func (c *caller) startPod(ctx context.Context, request hyperstart.StartPodRequest) error {
	if request.Hostname == "" {
		request.Hostname = "localhost" // mandatory
	}
	request.ShareDir = layout.ShareTag
	if _, err := c.frames.Hyper(ctx, "startpod", "", request); err != nil {
		return Classify(err)
	}
	c.podStarted.Store(true)
	return nil
}

// stopPod sends DESTROYPOD.
func (c *caller) stopPod(ctx context.Context) error {
	_, err := c.frames.Hyper(ctx, "destroypod", "", nil)
	return Classify(err)
}

// signalSession sends a signal through a session.
func (c *caller) signalSession(ctx context.Context, s *FrameSession, signal int) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return Classify(s.Signal(ctx, signal))
}

// killContainer sends a signal to a container by a command.
func (c *caller) killContainer(ctx context.Context, t Target, signal int) error {
	_, err := c.call(ctx, "killcontainer", "", hyperstart.KillContainerRequest{
		Container: t.Container, Signal: signal, AllProcesses: t.All,
	})
	return err
}

// signalProcess sends a signal to an exec process by a command.
func (c *caller) signalProcess(ctx context.Context, t Target, signal int) error {
	_, err := c.call(ctx, "signalprocess", "", hyperstart.SignalProcessRequest{
		Container: t.Container, Process: processIDOf(t.ExecID), Signal: signal,
	})
	return err
}

func (c *caller) notImplemented(name string) error {
	return fmt.Errorf("%s: a guest of dialect %s cannot do that: %w", name, c.dialect, errdefs.ErrNotImplemented)
}
