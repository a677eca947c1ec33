package podvm

import (
	"context"
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/blockdev"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/livevolume"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// exposed is what containers have of the host.
type exposed struct {
	shares *share.Shares
	disks  *blockdev.Table
	live   *livevolume.Watch // set by Boot; nil when the guest copies nothing
}

// Files is what one container has of the host's files and disks.
type Files struct {
	*livevolume.View
	disks *blockdev.View
}

// Files makes what a container has of the host's files and disks. The caller closes it.
// It needs a Boot that has succeeded.
func (m *Machine) Files(container string) (*Files, error) {
	view, err := m.shares.Container(container)
	if err != nil {
		return nil, err
	}
	return &Files{View: m.live.View(view), disks: m.disks.View(pluggerOf(m))}, nil
}

// Disks plugs the block devices that a container is given.
func (f *Files) Disks(ctx context.Context, spec *specs.Spec) ([]hyperstart.Disk, error) {
	return f.disks.Disks(ctx, spec)
}

// Close is called when the container is no longer in the guest. It is idempotent.
func (f *Files) Close() error { return errors.Join(f.disks.Close(), f.View.Close()) }
