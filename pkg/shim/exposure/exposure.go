package exposure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/memoryvolume"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// View is what a container has in the share; a [share.View] is one.
type View interface {
	Rootfs(all []mount.Mount) error
	RootfsDir(path string) error
	RootfsPath() string
	Bind(b share.Bind) (path string, guard bool, err error)
	Tree(path string, readOnly bool) (*os.File, error)
	Disks(ctx context.Context, spec *specs.Spec) ([]hyperstart.Disk, error)
	Close() error
}

// Exposure is what one container has.
type Exposure struct {
	view    View
	spec    *bundle.Bundle
	sources map[int]guestspec.Source // of its mounts, by their index
	paths   map[int]string           // of the same below the share
	binds   []client.Bind
	disks   []hyperstart.Disk
	memory  []hyperstart.MemoryVolume
	// programs are those of createContainer hooks in the guest, by their paths here.
	programs map[string]string
}

// Expose exposes the root file system, which is made of mounts, or a directory when
// there are none, the sources of all bind mounts, and block devices. With within a path below another
// volume needs no mount of its own. The view is the caller's, who closes it whatever
// came of this.
func Expose(ctx context.Context, view View, b *bundle.Bundle, rootfs []mount.Mount, within bool) (*Exposure, error) {
	e := &Exposure{view: view, spec: b, sources: make(map[int]guestspec.Source), paths: make(map[int]string)}
	var err error
	if len(rootfs) > 0 {
		err = view.Rootfs(rootfs)
	} else {
		err = view.RootfsDir(b.RootfsDir())
	}
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	for i, m := range b.Spec.Mounts {
		if !bundle.IsBind(m) || bundle.IsPodShm(m) {
			continue
		}
		if kernel, ok := bundle.KernelOf(m); ok {
			e.sources[i] = guestspec.Source{Kernel: kernel}
			continue
		}
		bind := guestspec.Bind(m, b.Dir)
		bind.Within, bind.Pod = within, b.PodUID()
		if inGuest, err := e.inMemory(i, bind); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		} else if inGuest {
			continue
		}
		if err := checkPipe(bind); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		path, guard, err := view.Bind(bind)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		e.paths[i] = path
		e.sources[i] = guestspec.Source{Path: filepath.Join(hyperstart.ShareMount, path), ReadOnly: guard}
		e.binds = append(e.binds, client.Bind{Source: path, Destination: m.Destination, ReadOnly: guestspec.IsReadOnly(m)})
	}
	if e.disks, err = view.Disks(ctx, b.Spec); err != nil {
		return nil, err
	}
	return e, e.exposePrograms()
}

// inMemory leaves a volume in memory to a guest that can have it there.
func (e *Exposure) inMemory(i int, b share.Bind) (bool, error) {
	if !b.Within { // an original one
		return false, nil
	}
	v, below, ok, err := memoryvolume.Of(b)
	if err != nil || !ok {
		return false, err
	}
	e.memory = append(e.memory, v)
	e.sources[i] = guestspec.Source{Path: filepath.Join(hyperstart.MemoryMount, v.Name, below), ReadOnly: b.Access != share.WriteAll}
	return true, nil
}

// checkPipe refuses a socket or a pipe, at whose other end some process of the host would
// have to be: in the guest nobody is there, and who opens such a pipe waits forever. In a
// volume of the pod alone it may be one that a container has made.
func checkPipe(b share.Bind) error {
	if b.Pod != "" && strings.Contains(b.Source, "/pods/"+b.Pod+"/") {
		return nil
	}
	info, err := os.Stat(b.Source)
	if err != nil {
		return nil //nolint:nilerr // the share says what is wrong with a source
	}
	what := "Unix socket"
	switch info.Mode().Type() {
	case os.ModeSocket:
	case os.ModeNamedPipe:
		what = "named pipe"
	default:
		return nil
	}
	return fmt.Errorf("%s is a %s, whose other end is a process of the host, which a container in a VM cannot reach: "+
		"use the network, or runc for this container: %w", b.Source, what, errdefs.ErrNotImplemented)
}

// exposePrograms exposes the programs of hooks that run in the container's namespaces
// before it has its root file system. They find no other files of the host there.
func (e *Exposure) exposePrograms() error {
	if e.spec.Spec.Hooks == nil {
		return nil
	}
	e.programs = make(map[string]string)
	for _, h := range e.spec.Spec.Hooks.CreateContainer {
		if e.programs[h.Path] != "" {
			continue
		}
		path, _, err := e.view.Bind(share.Bind{Source: h.Path, Access: share.WriteNothing})
		if err != nil {
			return fmt.Errorf("createContainer hook %s: %w", h.Path, err)
		}
		e.programs[h.Path] = filepath.Join(hyperstart.ShareMount, path)
	}
	return nil
}

// Programs are where the guest finds the programs of createContainer hooks, by their
// paths on the host.
func (e *Exposure) Programs() map[string]string { return e.programs }

// Rootfs is the path of the root file system in the guest.
func (e *Exposure) Rootfs() string { return filepath.Join(hyperstart.ShareMount, e.view.RootfsPath()) }

// Sources are where the guest finds the sources of mounts, by the mounts' index.
func (e *Exposure) Sources() map[int]guestspec.Source { return e.sources }

// Binds are the bind mounts, with paths below the share.
func (e *Exposure) Binds() []client.Bind { return e.binds }

// Disks are the block devices.
func (e *Exposure) Disks() []hyperstart.Disk { return e.disks }

// Memory is the volumes that the guest has in its memory.
func (e *Exposure) Memory() []hyperstart.MemoryVolume { return e.memory }

// OnHost is what those on the host shall see of the container: its files, and something
// empty in the place of what only the guest has. The caller closes it.
func (e *Exposure) OnHost() (c placeholder.Container, err error) {
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	spec := e.spec.Spec
	c.Hostname = spec.Hostname
	c.Root, err = e.view.Tree(e.view.RootfsPath(), spec.Root != nil && spec.Root.Readonly)
	if err != nil {
		return c, err
	}
	for i, m := range spec.Mounts {
		onHost := placeholder.Mount{Destination: m.Destination}
		if path, exposed := e.paths[i]; exposed {
			readOnly := e.sources[i].ReadOnly || guestspec.IsReadOnly(m)
			if onHost.Tree, err = e.view.Tree(path, readOnly); err != nil {
				return c, err
			}
		}
		c.Mounts = append(c.Mounts, onHost)
	}
	return c, nil
}
