package sandbox

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// CreateRequest describes a container to be made.
type CreateRequest struct {
	ID     string
	Bundle string // directory with config.json
	Rootfs []mount.Mount
	Stdio  stdio.Config
}

// Create makes a container, whose first process does not run yet. The first
// one boots the sandbox. On error nothing is left of the container.
func (s *Sandbox) Create(ctx context.Context, r CreateRequest) (*Container, error) {
	c, err := s.reserve(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := c.create(ctx); err != nil {
		return nil, fmt.Errorf("create container %s: %w", r.ID, err)
	}
	s.opts.Sink.Publish(TaskCreated{Container: c, PID: c.PID()})
	go c.init.awaitExit(context.WithoutCancel(ctx))
	return c, nil
}

// reserve takes the id, so that a second Create of it fails at once. When nobody
// waits for the first one any more, the second one waits until it is undone.
func (s *Sandbox) reserve(ctx context.Context, r CreateRequest) (*Container, error) {
	c := &Container{
		ID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, sandbox: s, execs: make(map[string]*Process),
		removed: make(chan struct{}), asker: ctx.Done(), forgotten: make(chan struct{}),
	}
	c.cond = sync.NewCond(&c.mu)
	c.init = newProcess(c, "", r.Stdio, nil)
	for {
		s.mu.Lock()
		other := s.containers[r.ID]
		if other == nil {
			s.containers[r.ID] = c
		}
		s.mu.Unlock()
		if other == nil {
			return c, nil
		}
		if !other.unasked() {
			return nil, fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
		}
		select {
		case <-other.forgotten:
		case <-ctx.Done():
			return nil, fmt.Errorf("container %s: wait until an earlier attempt is undone: %w", r.ID, ctx.Err())
		}
	}
}

// unasked reports whether the container is half made and whoever asked for it
// has gone. It will be undone: for all others it is not there, so that the next
// containerd does not take it for one that it can keep.
func (c *Container) unasked() bool {
	select {
	case <-c.asker:
		return c.State() == Creating
	default:
		return false
	}
}

// create does the work of Create, and undoes it on error.
func (c *Container) create(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		c.forget(context.WithoutCancel(ctx))
		return err
	}
	if err := c.sandbox.enter(); err != nil {
		c.forget(context.WithoutCancel(ctx))
		return err
	}
	defer c.sandbox.leave()
	if err := c.take(ctx); err != nil {
		c.forget(context.WithoutCancel(ctx))
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toLocked(Created)
}

// prepare reads the bundle and waits for the VM.
func (c *Container) prepare(ctx context.Context) (err error) {
	if c.bundle, err = bundle.Load(c.Bundle); err != nil {
		return err
	}
	if err := c.bundle.CheckRunnable(); err != nil {
		return err
	}
	var pod bundle.Pod
	if c.isSandbox() {
		pod = c.bundle.Pod()
	}
	// The directory is named in the bundle before anything is taken.
	if err := c.saveBundle(); err != nil {
		return err
	}
	return c.sandbox.EnsureReady(ctx, pod)
}

// saveBundle notes in the bundle what delete has to know after the shim's death.
func (c *Container) saveBundle() error {
	s := c.sandbox
	return bundle.SaveNote(c.Bundle, bundle.Note{
		Dir: s.dir.Path(), SandboxID: s.opts.ID, Share: c.ID, PID: c.PID(),
		Outlived: c.isSandbox() && c.State() == Deleted && s.Containers() > 0,
	})
}

// take takes what the container needs; every step notes how to undo it.
func (c *Container) take(ctx context.Context) error {
	s := c.sandbox
	if err := legacyRefusal(c.bundle.Spec, s.dialect); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotImplemented)
	}
	if err := c.takeStandIn(); err != nil {
		return err
	}
	if err := c.saveBundle(); err != nil {
		return err
	}
	if err := c.shareFiles(); err != nil {
		return err
	}
	if err := c.init.open(ctx); err != nil {
		return err
	}
	c.undoSteps.add(func(ctx context.Context) error {
		c.init.release(ctx)
		return nil
	})
	if s.dialect == hyperstart.DialectCCv2 {
		joined, err := c.joined(ctx)
		if err != nil {
			return err
		}
		request, err := newContainerRequest(c, joined)
		if err != nil {
			return err
		}
		if err := s.change(ctx, "newcontainer", c.init.token(), request); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // it is there, but nobody would ever start it
			c.removeInGuest(context.WithoutCancel(ctx))
			return err
		}
	}
	c.init.startCopying(context.WithoutCancel(ctx))
	return nil
}

func (c *Container) takeStandIn() error {
	if c.isSandbox() {
		return nil
	}
	standIn, err := c.sandbox.newStandIn()
	if err != nil {
		return err
	}
	c.undoSteps.add(standIn.close)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.standIn = standIn
	return nil
}

// shareFiles mounts the root file system and the volumes where the guest sees them.
func (c *Container) shareFiles() (err error) {
	if c.view, err = c.sandbox.shares.Container(c.ID); err != nil {
		return err
	}
	c.undoSteps.add(func(context.Context) error { return c.view.Close() })
	if err := c.mountRootfs(); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	return c.exposeMounts()
}
