package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// joined has the paths, in the guest, of the namespaces of other containers
// that this one joins.
func (c *Container) joined(ctx context.Context) (map[specs.LinuxNamespaceType]string, error) {
	paths := map[specs.LinuxNamespaceType]string{}
	if c.isSandbox() {
		return paths, nil
	}
	join := func(container string, kinds map[specs.LinuxNamespaceType]string) error {
		pid, err := c.sandbox.initPID(ctx, container)
		if err != nil {
			return fmt.Errorf("join namespaces: %w", err)
		}
		for kind, file := range kinds {
			paths[kind] = fmt.Sprintf("/proc/%d/ns/%s", pid, file)
		}
		return nil
	}
	if bundle.Joins(c.bundle.Spec, specs.UserNamespace) { // the pod's, which owns these too
		err := join(c.sandbox.opts.ID, map[specs.LinuxNamespaceType]string{
			specs.UserNamespace: "user", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		})
		if err != nil {
			return nil, err
		}
	}
	if bundle.Joins(c.bundle.Spec, specs.PIDNamespace) {
		container, err := c.pidsOf()
		if err != nil {
			return nil, fmt.Errorf("join namespaces: %w", err)
		}
		if err := join(container, map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid"}); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// pidsOf is the id of the container whose pid namespace this one joins. The
// specification names it by the container's pid on the host. A path of another
// form is that of the pod, which some clients keep elsewhere.
func (c *Container) pidsOf() (string, error) {
	s := c.sandbox
	for _, ns := range c.bundle.Spec.Linux.Namespaces {
		var pid int
		if n, _ := fmt.Sscanf(ns.Path, "/proc/%d/ns/pid", &pid); n == 0 || ns.Type != specs.PIDNamespace {
			continue
		}
		s.mu.Lock()
		all := slices.Collect(maps.Values(s.containers))
		s.mu.Unlock()
		for _, other := range all {
			if other.PID() == pid {
				return other.ID, nil
			}
		}
		return "", fmt.Errorf("%s is not of a container of this pod: %w", ns.Path, errdefs.ErrInvalidArgument)
	}
	return s.opts.ID, nil
}

// initPID is the pid, in the guest, of a container's first process.
func (s *Sandbox) initPID(ctx context.Context, container string) (int, error) {
	answer, err := s.call(ctx, "listprocesses", "", hyperstart.ContainerRef{Container: container})
	if err != nil {
		return 0, err
	}
	var list hyperstart.ProcessList
	if err := json.Unmarshal(answer, &list); err != nil {
		return 0, fmt.Errorf("decode process list: %w", err)
	}
	for _, p := range list.Processes {
		if p.Process == hyperstart.InitProcess {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("the first process of container %s has ended: %w", container, errdefs.ErrFailedPrecondition)
}
