package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/cleanup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hooks"
)

// Container is one container of a sandbox. It is safe for concurrent use.
type Container struct {
	ID     string
	Bundle string // path of its bundle
	// Rootfs is what Create was asked to mount, for the event.
	Rootfs []mount.Mount

	sandbox *Sandbox
	description

	init        *Process
	cleanup     cleanup.Stack   // of what it has on the host
	requestDone <-chan struct{} // closed when the caller of Create has gone
	settled     chan struct{}   // closed when Create has ended; then the container is created, or its id free
	removed     chan struct{}   // closed when Delete has done its work

	mu     sync.Mutex // guards the fields below
	cond   *sync.Cond // on mu; signals every change of state
	state  ContainerState
	execs  map[string]*Process
	status containerStatus
}

// description is what its bundle says of a container; nil before Create has read it.
type description struct {
	bundle *bundle.Bundle
	hooks  *hooks.Hooks
}

// containerStatus is what else changes in the life of a container.
type containerStatus struct {
	onHost   Placeholder // nil before there is one
	initGone bool        // the init process has ended; no exec may start
	oomSeen  bool
}

// isSandboxContainer reports whether the container represents the whole VM: in
// a pod it is the pause container.
func (c *Container) isSandboxContainer() bool { return c.ID == c.sandbox.opts.ID }

// State is the present state.
func (c *Container) State() ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// PID is that of the init process on the host; 0 before there is one.
func (c *Container) PID() int { return c.init.PID() }

// Process returns the process with an exec id, "" for the init process. Unknown
// ids are errdefs.ErrNotFound.
func (c *Container) Process(execID string) (*Process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.execs[execID]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("process %s of container %s: %w", execID, c.ID, errdefs.ErrNotFound)
}

// List returns all processes, the init process first.
func (c *Container) List() []*Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []*Process{c.init}
	for _, p := range c.execs {
		all = append(all, p)
	}
	return all
}

// Start runs the init process. What has begun in the guest is awaited even when
// the caller has gone.
func (c *Container) Start(ctx context.Context) error {
	c.mu.Lock()
	err := c.toLocked(ContainerStarting)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.init.io.Feed(c.sandbox.ctx, c.sandbox.wg.Go, c.init.String())
	if err := c.sandbox.startContainer(context.WithoutCancel(ctx), c.ID); err != nil {
		err = fmt.Errorf("start container %s: %w", c.ID, err)
		c.init.startFailed(err)
		return err
	}
	hookErr := c.hooks.Started(context.WithoutCancel(ctx), c.PID()) // one that fails ends the container, as with runc, unannounced
	if hookErr == nil {
		c.sandbox.publish(TaskStarted{ContainerID: c.ID, PID: c.PID()})
	}
	c.mu.Lock()
	err = c.toLocked(ContainerRunning)
	c.mu.Unlock()
	if err != nil || hookErr == nil {
		return err
	}
	return fmt.Errorf("start container %s: %w", c.ID, errors.Join(hookErr, c.Kill(context.WithoutCancel(ctx), "", sigkill, true)))
}

// Delete removes a container that has exited or was never started, and returns
// how its init process ended.
func (c *Container) Delete(ctx context.Context) (Exit, error) {
	if c.State() == ContainerCreated {
		if err := c.Kill(ctx, "", sigkill, true); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return Exit{}, err
		}
		if err := c.init.Wait(ctx); err != nil {
			return Exit{}, err
		}
	}
	c.mu.Lock()
	first := c.state != ContainerDeleted
	var err error
	if first {
		err = c.toLocked(ContainerDeleted)
	}
	c.mu.Unlock()
	if err != nil {
		return Exit{}, err
	}
	if first { // the work is done even when the caller gives up
		c.sandbox.wg.Go(func() { c.remove(context.WithoutCancel(ctx)) })
	}
	select {
	case <-c.removed:
		return c.init.Exit(), nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("delete container %s: %w", c.ID, ctx.Err())
	}
}

// Removed is closed when a Delete has done its work, whether or not its caller
// has waited for it.
func (c *Container) Removed() <-chan struct{} { return c.removed }

// remove does the work of Delete, once.
func (c *Container) remove(ctx context.Context) {
	defer close(c.removed)
	<-c.init.end.final      // its exit is announced before the deletion is
	c.sandbox.creates.Add() // the machine is released after what a container has
	defer c.sandbox.endCreate()
	for _, p := range c.List() {
		if p != c.init {
			p.abandon()
			p.io.Close(ctx)
		}
	}
	if c.sandbox.isReady() { // a guest that is gone keeps nothing
		removeFromGuest(ctx, c)
	}
	c.release(ctx)
	runPoststop(ctx, c)
	if c.isSandboxContainer() && c.sandbox.Containers() > 0 {
		if err := c.saveNote(); err != nil {
			log.G(ctx).WithError(err).WithField("container", c.ID).Error("note which containers are left")
		}
	}
	exit := c.init.Exit()
	c.sandbox.publish(TaskDeleted{ContainerID: c.ID, PID: c.PID(), Status: exit.Status, At: exit.At})
}

// removeFromGuest removes what the guest has of a container.
func removeFromGuest(ctx context.Context, c *Container) {
	err := c.sandbox.machine.Guest().RemoveContainer(ctx, c.ID)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		log.G(ctx).WithError(err).WithField("container", c.ID).Warn("remove container in guest")
	}
}

// undo releases what a container has on the host. It is idempotent.
func undo(ctx context.Context, c *Container) {
	if err := c.cleanup.Run(ctx); err != nil {
		log.G(ctx).WithError(err).WithField("container", c.ID).Error("clean up container")
	}
}

// runPoststop runs the hooks of a container that is gone; nothing undoes that.
func runPoststop(ctx context.Context, c *Container) {
	if !c.hooks.Due() {
		return
	}
	if err := errors.Join(c.hooks.Stopped(ctx), c.saveNote()); err != nil {
		log.G(ctx).WithError(err).WithField("container", c.ID).Error("run hooks of a removed container")
	}
}

// release releases what the container has on the host, and its id.
func (c *Container) release(ctx context.Context) {
	undo(ctx, c)
	c.sandbox.mu.Lock()
	delete(c.sandbox.containers, c.ID)
	c.sandbox.mu.Unlock()
}

// saveNote notes in the bundle what delete has to know after the shim's death.
func (c *Container) saveNote() error {
	s := c.sandbox
	return bundle.SaveNote(c.Bundle, bundle.Note{
		Dir: s.machine.Dir(), SandboxID: s.opts.ID, Share: c.ID, PID: c.PID(), Poststop: c.hooks.Due(),
		Outlived: c.isSandboxContainer() && c.State() == ContainerDeleted && s.Containers() > 0,
	})
}
