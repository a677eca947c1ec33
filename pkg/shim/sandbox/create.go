package sandbox

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/exposure"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hooks"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/nsjoin"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/validate"
)

// CreateRequest describes a container to be created.
type CreateRequest struct {
	ID     string
	Bundle string // directory with config.json
	Rootfs []mount.Mount
	Stdio  stdio.Config
}

// Create creates a container, whose init process does not run yet. The first
// one boots the sandbox. On error nothing is left of the container.
func (s *Sandbox) Create(ctx context.Context, r CreateRequest) (*Container, error) {
	c, err := s.reserve(ctx, r)
	if err != nil {
		return nil, err
	}
	defer close(c.settled)
	if err := (&creation{Container: c}).run(ctx); err != nil {
		c.release(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("create container %s: %w", r.ID, err)
	}
	s.publish(TaskCreated{Container: c, PID: c.PID()})
	s.wg.Go(c.init.awaitExit)
	return c, nil
}

// reserve reserves the id, so that a second Create of it fails at once. When
// the caller of the first one has gone, the second one waits until it is undone.
func (s *Sandbox) reserve(ctx context.Context, r CreateRequest) (*Container, error) {
	c := &Container{
		ID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, sandbox: s, execs: make(map[string]*Process),
		requestDone: ctx.Done(), settled: make(chan struct{}), removed: make(chan struct{}),
	}
	c.cond = sync.NewCond(&c.mu)
	c.init = newProcess(c, "", r.Stdio)
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
		if !other.abandoned() {
			return nil, fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
		}
		select {
		case <-other.settled:
		case <-ctx.Done():
			return nil, fmt.Errorf("container %s: wait until an earlier attempt is undone: %w", r.ID, ctx.Err())
		}
	}
}

// abandoned reports whether the container is partially created and its caller
// has gone. It will be undone: for all others it is not there, so that the next
// containerd does not take it for one that it can keep.
func (c *Container) abandoned() bool {
	select {
	case <-c.requestDone:
		return c.State() == ContainerCreating
	default:
		return false
	}
}

// creation is what is known of a container while it is being created.
type creation struct {
	*Container

	files   *exposure.Exposure
	inGuest bool // the guest has created it
}

// run does the work of Create. On error nothing is left but the id, which the
// caller releases.
func (n *creation) run(ctx context.Context) (err error) {
	if n.bundle, err = bundle.Load(n.Bundle); err != nil {
		return err
	}
	n.hooks = hooks.Of(n.ID, n.bundle)
	if err := validate.Container(ctx, n.ID, n.bundle); err != nil {
		return err
	}
	// The directory is named in the bundle before anything is acquired.
	if err := n.saveNote(); err != nil {
		return err
	}
	var pod bundle.Pod
	if n.isSandboxContainer() {
		if err := nsjoin.CheckAlone(n.bundle); err != nil {
			return err
		}
		pod = n.bundle.Pod()
	}
	if err := n.sandbox.EnsureReady(ctx, pod); err != nil {
		return err
	}
	if err := n.sandbox.beginCreate(); err != nil {
		return err
	}
	defer n.sandbox.endCreate()
	for _, step := range []func(context.Context) error{
		n.exposeFiles, n.openStreams, n.createInGuest, n.makePlaceholder, n.runHooks,
	} {
		if err := step(ctx); err != nil {
			n.undo(context.WithoutCancel(ctx)) // before the machine is released
			return err
		}
	}
	n.init.io.Copy(n.sandbox.ctx, n.sandbox.wg.Go, n.init.String())
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.toLocked(ContainerCreated)
}

// undo takes back what was done until a step failed.
func (n *creation) undo(ctx context.Context) {
	if n.inGuest {
		removeFromGuest(ctx, n.Container)
	}
	undo(ctx, n.Container)
	runPoststop(ctx, n.Container)
}

// runHooks runs the hooks that come before the container is there for its client.
func (n *creation) runHooks(ctx context.Context) error { return n.hooks.Create(ctx, n.PID()) }

// exposeFiles exposes the root file system and the volumes to the guest.
func (n *creation) exposeFiles(ctx context.Context) error {
	view, err := n.sandbox.machine.Files(n.ID)
	if err != nil {
		return err
	}
	n.cleanup.Add(func(context.Context) error { return view.Close() })
	n.files, err = exposure.Expose(ctx, view, n.bundle, n.Rootfs, client.ResolvesBeneath(n.sandbox.machine.Guest()))
	return err
}

// openStreams opens the streams of the init process at both ends.
func (n *creation) openStreams(ctx context.Context) error {
	n.cleanup.Add(func(ctx context.Context) error {
		n.init.io.Close(ctx)
		return nil
	})
	return n.init.open(ctx)
}

// createInGuest creates the container in the guest.
func (n *creation) createInGuest(ctx context.Context) error {
	joined, err := nsjoin.Paths(ctx, n.ID, n.bundle, nsjoin.Pod{
		Guest: n.sandbox.machine.Guest(), Sandbox: n.sandbox.opts.ID,
		ByPID: func(pid int) string { return byPID(n.sandbox, pid) },
	})
	if err != nil {
		return err
	}
	err = n.sandbox.machine.Guest().CreateContainer(ctx, n.init.io.Session(), client.Container{
		ID: n.ID, Terminal: n.init.stdio.Terminal, Binds: n.files.Binds(), Disks: n.files.Disks(), Memory: n.files.Memory(), Pause: n.bundle.IsPodSandbox(), SharesIPC: n.bundle.SharesIPC(), FindProgram: n.files.FindProgram,
		Spec: guestspec.Container(n.bundle.Spec, guestspec.Options{
			ID: n.ID, Sandbox: n.isSandboxContainer(), Joined: joined, Sources: n.files.Sources(), Programs: n.files.Programs(),
			Rootfs: n.files.Rootfs(), Shm: hyperstart.ShmMount,
		}),
	})
	n.inGuest = err == nil
	return err
}
