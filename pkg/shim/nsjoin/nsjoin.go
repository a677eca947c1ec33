package nsjoin

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// The files in /proc/PID/ns of namespaces that are joined.
var (
	userNamespaceFiles = map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts"}
	pidNamespaceFile   = map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid"}
)

// Pod is what there is to join.
type Pod struct {
	Guest   Guest
	Sandbox string // id of the sandbox container
	// ByPID is the id of the container whose init process has a pid on the host, ""
	// when there is none.
	ByPID func(pid int) string
}

// Guest is what is asked of a guest.
type Guest interface {
	Processes(ctx context.Context, container string) ([]client.ProcessInfo, error)
}

// Paths are those, in the guest, of the namespaces of other containers that a container
// joins, which is not the sandbox container.
func Paths(ctx context.Context, spec *specs.Spec, pod Pod) (map[specs.LinuxNamespaceType]string, error) {
	paths := map[specs.LinuxNamespaceType]string{}
	join := func(container string, files map[specs.LinuxNamespaceType]string) error {
		pid, err := pod.initPID(ctx, container)
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
	if bundle.Joins(spec, specs.UserNamespace) { // the pod's, which owns these too
		if err := join(pod.Sandbox, userNamespaceFiles); err != nil {
			return nil, err
		}
	}
	if bundle.Joins(spec, specs.PIDNamespace) {
		container, err := pod.pidNamespaceOwner(spec)
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
func (p Pod) pidNamespaceOwner(spec *specs.Spec) (string, error) {
	for _, ns := range spec.Linux.Namespaces {
		var pid int
		if found, _ := fmt.Sscanf(ns.Path, "/proc/%d/ns/pid", &pid); found == 0 || ns.Type != specs.PIDNamespace {
			continue
		}
		if id := p.ByPID(pid); id != "" {
			return id, nil
		}
		return "", fmt.Errorf("%s is not of a container of this pod: %w", ns.Path, errdefs.ErrInvalidArgument)
	}
	return p.Sandbox, nil
}

// initPID is the pid, in the guest, of a container's init process.
func (p Pod) initPID(ctx context.Context, container string) (int, error) {
	all, err := p.Guest.Processes(ctx, container)
	if err != nil {
		return 0, err
	}
	for _, process := range all {
		if process.Init {
			return process.PID, nil
		}
	}
	return 0, fmt.Errorf("the init process of container %s has ended: %w", container, errdefs.ErrFailedPrecondition)
}
