package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// Container is one container of a sandbox. It is safe for concurrent use.
type Container struct {
	ID     string
	Bundle string
	// Rootfs is what Create was asked to mount, for the event.
	Rootfs []mount.Mount

	sandbox *Sandbox
	bundle  *bundle.Bundle
	sources map[int]guestspec.Source // of its mounts, by their index
	binds   []bindMount
	view    *share.View // what of the host it sees
	init    *Process
	removed chan struct{} // closed when Delete has done its work

	asker     <-chan struct{} // closed when nobody waits for Create any more
	forgotten chan struct{}   // closed when the id is free again

	mu        sync.Mutex // guards the fields below
	cond      *sync.Cond // on mu; signals every change of state
	state     ContainerState
	execs     map[string]*Process
	initGone  bool // the first process has ended; no exec may start
	oomSeen   bool
	undoSteps undoStack
	standIn   *standIn // nil for the sandbox's own container
}

// forget drops a container and gives back what it took.
func (c *Container) forget(ctx context.Context) {
	if err := c.undoSteps.run(ctx); err != nil {
		log.G(ctx).WithError(err).WithField("container", c.ID).Error("clean up container")
	}
	c.sandbox.mu.Lock()
	delete(c.sandbox.containers, c.ID)
	c.sandbox.mu.Unlock()
	close(c.forgotten)
}

// isSandbox reports whether the container is the sandbox's own, which stands
// for the whole VM.
func (c *Container) isSandbox() bool { return c.ID == c.sandbox.opts.ID }

// State is the present state.
func (c *Container) State() ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// PID stands for the container on the host: for the sandbox's own container it
// is the VMM's process id, for the others that of a stand-in. It is 0 before
// there is one.
func (c *Container) PID() int {
	if c.isSandbox() {
		return c.sandbox.PID()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.standIn == nil {
		return 0
	}
	return c.standIn.pid
}

// Process returns the process with an exec id, "" for the first one. Unknown
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

// to moves the state; the caller holds c.mu.
func (c *Container) toLocked(next ContainerState) error {
	err := move(containerNext, "container "+c.ID, &c.state, next)
	c.cond.Broadcast()
	return err
}

// Start runs the first process.
func (c *Container) Start(ctx context.Context) error {
	c.mu.Lock()
	err := c.toLocked(Starting)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	// What has begun in the guest is waited for, see change.
	if err := c.startInGuest(context.WithoutCancel(ctx)); err != nil {
		err = fmt.Errorf("start container %s: %w", c.ID, err)
		c.init.startFailed(err)
		return err
	}
	c.sandbox.opts.Sink.Publish(TaskStarted{ContainerID: c.ID, PID: c.PID()})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toLocked(Running)
}

func (c *Container) startInGuest(ctx context.Context) error {
	s := c.sandbox
	if s.dialect != hyperstart.DialectCCv2 { // create and start are one command there
		_, err := s.call(ctx, "newcontainer", c.init.token(), legacyContainer(c, s.dialect))
		return err
	}
	if c.isSandbox() {
		// Clients may have set up the network since Create, which is when they
		// learn of the namespace.
		if err := s.network.Refresh(ctx); err != nil {
			return fmt.Errorf("set up network: %w", err)
		}
	}
	_, err := s.call(ctx, "startcontainer", "", hyperstart.ContainerRef{Container: c.ID})
	return err
}

// Delete forgets a container that has ended or was never started, and returns
// how its first process ended.
func (c *Container) Delete(ctx context.Context) (Exit, error) {
	if c.State() == Created {
		if err := c.Kill(ctx, "", killSignal, true); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return Exit{}, err
		}
		if err := c.init.Wait(ctx); err != nil {
			return Exit{}, err
		}
	}
	c.mu.Lock()
	first := c.state != Deleted
	var err error
	if first {
		err = c.toLocked(Deleted)
	}
	c.mu.Unlock()
	if err != nil {
		return Exit{}, err
	}
	if first { // a caller that gives up does not leave half a container
		go c.remove(context.WithoutCancel(ctx))
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
	<-c.init.done // its exit is announced before the deletion is
	c.mu.Lock()
	execs := make([]*Process, 0, len(c.execs))
	for _, p := range c.execs {
		execs = append(execs, p)
	}
	c.mu.Unlock()
	for _, p := range execs {
		p.abandon()
		p.release(ctx)
	}
	c.removeInGuest(ctx)
	c.forget(ctx)
	if c.isSandbox() && c.sandbox.Containers() > 0 {
		if err := c.saveBundle(); err != nil {
			log.G(ctx).WithError(err).WithField("container", c.ID).Error("note which containers are left")
		}
	}
	exit := c.init.Exit()
	c.sandbox.opts.Sink.Publish(TaskDeleted{ContainerID: c.ID, PID: c.PID(), Status: exit.Status, At: exit.At})
}

// removeInGuest frees what the guest keeps of the container. A guest that is
// gone keeps nothing, and hyperhq's forgets containers by itself.
func (c *Container) removeInGuest(ctx context.Context) {
	if c.sandbox.State() != Ready || c.sandbox.dialect == hyperstart.DialectHyperhq {
		return
	}
	_, err := c.sandbox.call(ctx, "removecontainer", "", hyperstart.ContainerRef{Container: c.ID})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		log.G(ctx).WithError(err).WithField("container", c.ID).Warn("remove container in guest")
	}
}

// Stats returns the container's resource usage.
func (c *Container) Stats(ctx context.Context) (*hyperstart.Stats, error) {
	answer, err := c.sandbox.call(ctx, "statscontainer", "", hyperstart.ContainerRef{Container: c.ID})
	if err != nil {
		return nil, err
	}
	var stats hyperstart.Stats
	if err := json.Unmarshal(answer, &stats); err != nil {
		return nil, fmt.Errorf("decode statistics: %w", err)
	}
	return &stats, nil
}

// Update changes limits; resources is LinuxResources of the OCI specification
// as JSON.
func (c *Container) Update(ctx context.Context, resources []byte) error {
	var limits specs.LinuxResources
	if err := json.Unmarshal(resources, &limits); err != nil {
		return fmt.Errorf("decode resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	raw, err := json.Marshal(guestspec.Resources(&limits))
	if err != nil {
		return fmt.Errorf("encode resources: %w", err)
	}
	return c.sandbox.change(ctx, "updatecontainer", "", hyperstart.UpdateContainerRequest{Container: c.ID, Resources: raw})
}

// oom takes the guest's word that a process was killed for want of memory,
// once: a hostile guest must not flood containerd.
func (c *Container) oom() {
	c.mu.Lock()
	seen := c.oomSeen
	c.oomSeen = true
	c.mu.Unlock()
	if !seen {
		c.sandbox.opts.Sink.Publish(TaskOOM{ContainerID: c.ID})
	}
}
