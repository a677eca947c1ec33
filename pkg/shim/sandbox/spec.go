package sandbox

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
)

// bindMount is a bind mount of a container, as a guest that knows no OCI
// specification gets it.
type bindMount struct {
	source      string // path below the share
	destination string // in the container
	readOnly    bool
}

// exposeMounts exposes the sources of all bind mounts to the guest.
func (c *Container) exposeMounts() error {
	c.sources = make(map[int]guestspec.Source)
	for i, m := range c.bundle.Spec.Mounts {
		if !bundle.IsBind(m) || bundle.IsShm(m) {
			continue
		}
		if size := bundle.HugePageSize(m); size != 0 {
			c.sources[i] = guestspec.Source{HugePages: size}
			continue
		}
		path, readOnly, err := c.view.Bind(guestspec.Bind(m, c.Bundle))
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		c.sources[i] = guestspec.Source{Path: filepath.Join(hyperstart.ShareMount, path), ReadOnly: readOnly}
		c.binds = append(c.binds, bindMount{source: path, destination: m.Destination, readOnly: guestspec.IsReadOnly(m)})
	}
	return nil
}

// newContainerRequest makes the payload for a ccv2 guest.
func newContainerRequest(c *Container, joined map[specs.LinuxNamespaceType]string) (hyperstart.NewContainerRequest, error) {
	spec := guestspec.Container(c.bundle.Spec, guestspec.Options{
		ID: c.ID, Sandbox: c.isSandbox(), Joined: joined, Sources: c.sources,
		Rootfs: filepath.Join(hyperstart.ShareMount, c.view.RootfsPath()), Shm: hyperstart.ShmMount,
	})
	raw, err := json.Marshal(spec)
	if err != nil {
		return hyperstart.NewContainerRequest{}, fmt.Errorf("encode specification: %w", err)
	}
	process := &hyperstart.Process{ID: hyperstart.InitProcess, Terminal: c.init.stdio.Terminal}
	setSize(process, spec.Process.ConsoleSize)
	return hyperstart.NewContainerRequest{ID: c.ID, Process: process, Spec: raw}, nil
}

func setSize(p *hyperstart.Process, size *specs.Box) {
	const most = 1<<16 - 1
	if p.Terminal && size != nil && size.Height <= most && size.Width <= most {
		p.Rows, p.Columns = uint16(size.Height), uint16(size.Width)
	}
}

// execRequest makes the payload of EXECCMD for the guest's dialect.
func execRequest(p *Process, dialect hyperstart.Dialect) (hyperstart.ExecCmdRequest, error) {
	request := hyperstart.ExecCmdRequest{Container: p.container.ID}
	if dialect != hyperstart.DialectCCv2 {
		request.Process = legacyProcess(p.spec, p.guestID(), p.stdio.Terminal, dialect)
		return request, nil
	}
	raw, err := json.Marshal(guestspec.Process(p.spec, p.stdio.Terminal))
	if err != nil {
		return request, fmt.Errorf("encode process: %w", err)
	}
	request.Process = &hyperstart.Process{ID: p.guestID(), Terminal: p.stdio.Terminal, OCI: raw}
	setSize(request.Process, p.spec.ConsoleSize)
	return request, nil
}
