package sandbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestspec"
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
	var limits specs.LinuxResources
	if err := json.Unmarshal(resources, &limits); err != nil {
		return fmt.Errorf("decode resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := c.sandbox.ready(); err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	if err := c.sandbox.machine.Guest().Update(ctx, c.ID, guestspec.Resources(&limits)); err != nil {
		return err
	}
	return c.sandbox.machine.LimitCPU(ctx, limits.CPU)
}

// ProcessInfo is one process of a container.
type ProcessInfo struct {
	PID    int
	ExecID string // "" for the init process and for descendants
}

// Processes lists the container's processes with the guest's pids and exec ids.
// It is never empty for a container that exists: when the guest cannot answer,
// the container's pid on the host represents all, because containerd takes an
// empty list for a container that is gone.
func (c *Container) Processes(ctx context.Context) ([]ProcessInfo, error) {
	all := []ProcessInfo{{PID: c.PID()}}
	switch c.State() {
	case ContainerCreated, ContainerRunning, ContainerStarting:
	case ContainerCreating, ContainerPausing, ContainerPaused, ContainerResuming, ContainerExited, ContainerDeleted:
		return all, nil
	}
	if !c.sandbox.isReady() {
		return all, nil
	}
	list, err := c.sandbox.machine.Guest().Processes(ctx, c.ID)
	if err != nil || len(list) == 0 {
		return all, nil //nolint:nilerr // see above
	}
	all = all[:0]
	for _, p := range list {
		all = append(all, ProcessInfo{PID: p.PID, ExecID: p.ExecID})
	}
	return all, nil
}
