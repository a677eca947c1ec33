package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// The files in /proc/PID/ns of namespaces that are joined.
var (
	userNamespaceFiles = map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts"}
	pidNamespaceFile   = map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid"}
)

// joined has the paths, in the guest, of the namespaces of other containers
// that this one joins.
func (n *creation) joined(ctx context.Context) (map[specs.LinuxNamespaceType]string, error) {
	paths := map[specs.LinuxNamespaceType]string{}
	if n.isSandboxContainer() {
		return paths, nil
	}
	join := func(container string, files map[specs.LinuxNamespaceType]string) error {
		pid, err := n.initPID(ctx, container)
		if errdefs.IsNotImplemented(err) {
			return nil // an original guest joins none, and refuses what that would weaken
		}
		if err != nil {
			return fmt.Errorf("join namespaces: %w", err)
		}
		for kind, file := range files {
			paths[kind] = fmt.Sprintf("/proc/%d/ns/%s", pid, file)
		}
		return nil
	}
	if bundle.Joins(n.bundle.Spec, specs.UserNamespace) { // the pod's, which owns these too
		if err := join(n.sandbox.opts.ID, userNamespaceFiles); err != nil {
			return nil, err
		}
	}
	if bundle.Joins(n.bundle.Spec, specs.PIDNamespace) {
		container, err := n.pidNamespaceOwner()
		if err != nil {
			return nil, fmt.Errorf("join namespaces: %w", err)
		}
		if err := join(container, pidNamespaceFile); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// pidNamespaceOwner is the id of the container whose pid namespace is joined.
// The specification names it by the container's pid on the host. A path of
// another form is that of the pod, which some clients keep elsewhere.
func (n *creation) pidNamespaceOwner() (string, error) {
	for _, ns := range n.bundle.Spec.Linux.Namespaces {
		var pid int
		if found, _ := fmt.Sscanf(ns.Path, "/proc/%d/ns/pid", &pid); found == 0 || ns.Type != specs.PIDNamespace {
			continue
		}
		for _, c := range n.sandbox.list() {
			if c.PID() == pid {
				return c.ID, nil
			}
		}
		return "", fmt.Errorf("%s is not of a container of this pod: %w", ns.Path, errdefs.ErrInvalidArgument)
	}
	return n.sandbox.opts.ID, nil
}

// initPID is the pid, in the guest, of a container's init process.
func (n *creation) initPID(ctx context.Context, container string) (int, error) {
	all, err := n.sandbox.machine.Guest().Processes(ctx, container)
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		if p.Init {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("the init process of container %s has ended: %w", container, errdefs.ErrFailedPrecondition)
}
