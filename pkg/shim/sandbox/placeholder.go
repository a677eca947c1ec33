package sandbox

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
)

// makePlaceholder makes what stands for the container on the host, with the pid by
// which clients know it, and notes that. The guest has made the mount points by now.
func (n *creation) makePlaceholder(context.Context) error {
	looks, err := n.files.OnHost()
	if err != nil {
		return err
	}
	looks.NewNetwork = !n.isSandboxContainer() && n.bundle.OwnNetwork() // what is set up there must not be in the VM's
	onHost, err := n.sandbox.machine.Placeholder(looks)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.status.onHost = onHost
	n.mu.Unlock()
	n.cleanup.Add(func(context.Context) error {
		onHost.Close()
		return nil
	})
	if err := appear(n.init, n.bundle.Spec.Process); err != nil {
		return err
	}
	return n.saveNote()
}

// placeholderOf is what stands for a container on the host; nil before there is one.
func placeholderOf(c *Container) Placeholder {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.onHost
}

// appear makes the process one of the host's, by a pid of its own. What others send to
// that is meant for the process in the guest.
func appear(p *Process, spec *specs.Process) error {
	c, s := p.container, p.container.sandbox
	id := placeholder.Identity{Name: filepath.Base(spec.Args[0]), Args: spec.Args}
	id.UID, id.GID = bundle.HostIDs(c.bundle.Spec, spec.User)
	pid, err := placeholderOf(c).Start(p.ID, id, placeholder.PassOn(s.wg.Go, func(signal syscall.Signal) {
		if err := c.Kill(s.ctx, p.ID, int(signal), false); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			log.G(s.ctx).WithError(err).WithField("process", p.String()).Warn("pass on a signal to its pid")
		}
	}))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
	return err
}

// disappear ends the process on the host; that of the init process with all others of
// the container.
func disappear(p *Process) {
	onHost := placeholderOf(p.container)
	switch {
	case onHost == nil:
	case p.ID == "":
		onHost.Close()
	default:
		onHost.End(p.ID)
	}
}

// byPID is the id of the container whose init process has a pid on the host, "" when
// there is none.
func byPID(s *Sandbox, pid int) string {
	for _, c := range s.List() {
		if c.PID() == pid && c.State() != ContainerExited { // then it may be another process's
			return c.ID
		}
	}
	return ""
}

// ProcessInfo is one process of a container.
type ProcessInfo struct {
	PID    int    // on the host
	ExecID string // "" for the init process and for descendants
}

// Processes lists the container's processes, each with the pid of one on the host that
// looks like it; those of descendants are there for some time only. It is never empty
// for a container that exists: when the guest cannot answer, the init process
// represents all, because containerd takes an empty list for a container that is gone.
func (c *Container) Processes(ctx context.Context) ([]ProcessInfo, error) {
	initial := []ProcessInfo{{PID: c.PID()}}
	switch c.State() {
	case ContainerCreated, ContainerRunning, ContainerStarting:
	case ContainerCreating, ContainerPausing, ContainerPaused, ContainerResuming, ContainerExited, ContainerDeleted:
		return initial, nil
	}
	if !c.sandbox.isReady() {
		return initial, nil
	}
	list, err := c.sandbox.machine.Guest().Processes(ctx, c.ID)
	if err != nil || len(list) == 0 {
		return initial, nil //nolint:nilerr // see above
	}
	var (
		all         []ProcessInfo
		descendants []placeholder.Mirrored
	)
	for _, p := range list {
		process, err := c.Process(p.ExecID)
		if known := err == nil && (p.Init || p.ExecID != "") && process.PID() != 0; known {
			all = append(all, ProcessInfo{PID: process.PID(), ExecID: p.ExecID})
			continue
		}
		descendants = append(descendants, placeholder.Mirrored{
			GuestPID: p.PID, Identity: placeholder.Identity{Name: p.Name, Args: p.Args, UID: p.UID, GID: p.GID},
		})
	}
	for _, pid := range placeholderOf(c).Mirror(descendants) {
		if pid != 0 {
			all = append(all, ProcessInfo{PID: pid})
		}
	}
	return all, nil
}
