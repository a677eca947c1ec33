package guesttest

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// container is a container in the guest.
type container struct {
	created   client.Container
	init      *Process
	execs     map[string]*Process
	paused    bool
	resources *specs.LinuxResources
}

// all returns the exec processes, and then the init process.
func (c *container) all() []*Process {
	list := make([]*Process, 0, len(c.execs)+1)
	for _, p := range c.execs {
		list = append(list, p)
	}
	return append(list, c.init)
}

// StartPod implements [client.Guest].
func (g *Guest) StartPod(ctx context.Context, pod client.Pod) error {
	if err := g.enter(ctx, Call{Method: "StartPod"}); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pod = &pod
	return nil
}

// StopPod implements [client.Guest].
func (g *Guest) StopPod(ctx context.Context) (synced bool, err error) {
	if err := g.enter(ctx, Call{Method: "StopPod"}); err != nil {
		return false, err
	}
	if g.opts.PowerOff != nil {
		g.opts.PowerOff()
	}
	return true, nil
}

// Sync implements [client.Guest].
func (g *Guest) Sync(ctx context.Context) error { return g.enter(ctx, Call{Method: "Sync"}) }

// SetInterface implements [client.Guest].
func (g *Guest) SetInterface(ctx context.Context, i hyperstart.Interface) error {
	if err := g.enter(ctx, Call{Method: "SetInterface"}); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	known := slices.IndexFunc(g.network.Interfaces, func(o hyperstart.Interface) bool { return o.MAC == i.MAC })
	if known >= 0 {
		g.network.Interfaces[known] = i
	} else {
		g.network.Interfaces = append(g.network.Interfaces, i)
	}
	return nil
}

// SetRoutes implements [client.Guest].
func (g *Guest) SetRoutes(ctx context.Context, r hyperstart.Routes) error {
	if err := g.enter(ctx, Call{Method: "SetRoutes"}); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.network.Routes = r
	return nil
}

// find returns a container; the caller holds g.mu.
func (g *Guest) findLocked(id string) (*container, error) {
	if c := g.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
}

// CreateContainer implements [client.Guest].
func (g *Guest) CreateContainer(ctx context.Context, s client.Session, c client.Container) error {
	if err := g.enter(ctx, Call{Method: "CreateContainer", Container: c.ID}); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("CreateContainer: %w", ctx.Err())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.containers[c.ID] != nil {
		return fmt.Errorf("container %s: %w", c.ID, errdefs.ErrAlreadyExists)
	}
	init, err := g.newProcessLocked(s, c.Spec.Process)
	if err != nil {
		return err
	}
	g.containers[c.ID] = &container{created: c, init: init, execs: make(map[string]*Process)}
	g.cond.Broadcast()
	return nil
}

// StartContainer implements [client.Guest].
func (g *Guest) StartContainer(ctx context.Context, id string) error {
	if err := g.enter(context.WithoutCancel(ctx), Call{Method: "StartContainer", Container: id}); err != nil {
		return err
	}
	g.mu.Lock()
	c, err := g.findLocked(id)
	if err == nil && (c.init.started || c.init.exited) {
		err = fmt.Errorf("container %s was started before: %w", id, errdefs.ErrFailedPrecondition)
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return c.init.start()
}

// RemoveContainer implements [client.Guest].
func (g *Guest) RemoveContainer(ctx context.Context, id string) error {
	if err := g.enter(ctx, Call{Method: "RemoveContainer", Container: id}); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c, err := g.findLocked(id)
	if err != nil {
		return err
	}
	if c.init.started && !c.init.exited {
		return fmt.Errorf("container %s is running: %w", id, errdefs.ErrFailedPrecondition)
	}
	delete(g.containers, id)
	return nil
}

// Exec implements [client.Guest].
func (g *Guest) Exec(ctx context.Context, s client.Session, e client.Exec) error {
	if err := g.enter(ctx, Call{Method: "Exec", Container: e.Container, ExecID: e.ID}); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("Exec: %w", ctx.Err())
	}
	g.mu.Lock()
	c, err := g.findLocked(e.Container)
	if err == nil && c.init.exited {
		err = fmt.Errorf("container %s has exited: %w", e.Container, errdefs.ErrFailedPrecondition)
	}
	if err == nil && c.execs[e.ID] != nil && !c.execs[e.ID].exited {
		err = fmt.Errorf("process %s: %w", e.ID, errdefs.ErrAlreadyExists)
	}
	var p *Process
	if err == nil {
		p, err = g.newProcessLocked(s, e.Process)
	}
	if err == nil {
		c.execs[e.ID] = p
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return p.start()
}

// Forward implements [client.Forwarder]. The connection is the process that
// Forwarded returns.
func (g *Guest) Forward(ctx context.Context, s client.Session, port uint16) error {
	if err := g.enter(ctx, Call{Method: "Forward"}); err != nil {
		return err
	}
	g.mu.Lock()
	p, err := g.newProcessLocked(s, &specs.Process{Args: []string{"forward"}})
	if err == nil {
		g.forwards[port] = p
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return p.start()
}

// Signal implements [client.Guest].
func (g *Guest) Signal(ctx context.Context, s client.Session, t client.Target, signal int) error {
	if err := g.enter(ctx, Call{Method: "Signal", Container: t.Container, ExecID: t.ExecID, Signal: signal}); err != nil {
		return err
	}
	g.mu.Lock()
	c := g.containers[t.Container]
	var p *Process
	switch own, _ := s.(*session); {
	case own != nil && own.process != nil:
		p = own.process
	case c != nil && t.ExecID == "":
		p = c.init
	case c != nil:
		p = c.execs[t.ExecID]
	}
	var targets []*Process
	if p != nil && !p.exited {
		targets = []*Process{p}
		if t.All && c != nil {
			targets = c.all()
		}
	}
	g.mu.Unlock()
	if len(targets) == 0 {
		return fmt.Errorf("no such process: %w", errdefs.ErrNotFound)
	}
	for _, p := range targets {
		p.signal(signal)
	}
	return nil
}

// Update implements [client.Guest].
func (g *Guest) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	return g.change(ctx, "Update", id, func(c *container) { c.resources = resources })
}

// Pause implements [client.Guest].
func (g *Guest) Pause(ctx context.Context, id string) error {
	return g.change(ctx, "Pause", id, func(c *container) { c.paused = true })
}

// Resume implements [client.Guest].
func (g *Guest) Resume(ctx context.Context, id string) error {
	return g.change(ctx, "Resume", id, func(c *container) { c.paused = false })
}

func (g *Guest) change(ctx context.Context, method, id string, do func(*container)) error {
	if err := g.enter(ctx, Call{Method: method, Container: id}); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c, err := g.findLocked(id)
	if err == nil {
		do(c)
	}
	return err
}

// Stats implements [client.Guest].
func (g *Guest) Stats(ctx context.Context, id string) (*hyperstart.Stats, error) {
	var stats hyperstart.Stats
	err := g.change(ctx, "Stats", id, func(*container) { stats = g.stats })
	return &stats, err
}

// Processes implements [client.Guest].
func (g *Guest) Processes(ctx context.Context, id string) (list []client.ProcessInfo, err error) {
	err = g.change(ctx, "Processes", id, func(c *container) {
		if !c.init.exited {
			list = append(list, client.ProcessInfo{PID: c.init.pid, Init: true})
		}
		for execID, p := range c.execs {
			if !p.exited {
				list = append(list, client.ProcessInfo{PID: p.pid, ExecID: execID})
			}
		}
	})
	slices.SortFunc(list, func(a, b client.ProcessInfo) int { return a.PID - b.PID })
	return list, err
}

// Paused reports whether a container is paused.
func (g *Guest) Paused(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.containers[id]
	return c != nil && c.paused
}

// Created returns what a container was created with.
func (g *Guest) Created(id string) (client.Container, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.containers[id]; c != nil {
		return c.created, true
	}
	return client.Container{}, false
}

// Resources returns what Update said of a container last, nil for nothing.
func (g *Guest) Resources(id string) *specs.LinuxResources {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.containers[id]; c != nil {
		return c.resources
	}
	return nil
}

const killedStatus = 128 + uint8(unix.SIGKILL)
