package sandbox

import (
	"context"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/validate"
)

// Stats returns the container's resource usage.
func (c *Container) Stats(ctx context.Context) (*hyperstart.Stats, error) {
	if err := c.sandbox.ready(); err != nil {
		return nil, fmt.Errorf("statistics of container %s: %w", c.ID, err)
	}
	return c.sandbox.machine.Guest().Stats(ctx, c.ID)
}

// Update changes limits; resources is LinuxResources of the OCI specification
// as JSON.
func (c *Container) Update(ctx context.Context, resources []byte) error {
	limits, err := validate.Resources(resources)
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	if err := c.sandbox.ready(); err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	err = c.sandbox.machine.Guest().Update(ctx, c.ID, guestspec.Resources(limits))
	if err != nil || !c.isSandboxContainer() { // what runs on the host has the limits of that one
		return err
	}
	return c.sandbox.machine.LimitCPU(ctx, limits.CPU)
}
