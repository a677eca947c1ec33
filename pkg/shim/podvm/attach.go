package podvm

import (
	"context"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/blockdev"
)

// Disks are those that an operator attaches to a machine. No container has them.
type Disks struct{ machine *Machine }

// DisksOf are those of a machine.
func DisksOf(m *Machine) Disks { return Disks{m} }

// Attach gives the VM a block device or an image of the host. It needs a Boot that has succeeded.
func (d Disks) Attach(ctx context.Context, path string, readOnly bool) (blockdev.Attached, error) {
	if err := d.machine.gate(); err != nil {
		return blockdev.Attached{}, fmt.Errorf("attach disk %s: %w", path, err)
	}
	return d.machine.disks.Attach(ctx, pluggerOf(d.machine), path, readOnly)
}

// Detach takes back a disk that was attached. It needs a Boot that has succeeded.
func (d Disks) Detach(ctx context.Context, name string) error {
	if err := d.machine.gate(); err != nil {
		return fmt.Errorf("detach disk %s: %w", name, err)
	}
	return d.machine.disks.Detach(ctx, pluggerOf(d.machine), name)
}
