package nsjoin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// files has the names in /proc/PID/ns of namespaces that are joined in the guest.
var files = map[specs.LinuxNamespaceType]string{
	specs.UserNamespace: "user", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid",
}

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

// CheckAlone refuses a container that is the first one of a VM and no pod's when it
// asks for namespaces of others: nothing but the VM's containers has any there. The
// network is the host's, where the VM can be; the user namespace is made anew.
func CheckAlone(b *bundle.Bundle) error {
	if b.OfPod() {
		return nil // some clients keep a pod's on the host
	}
	for _, ns := range b.Spec.Linux.Namespaces {
		if err := ended(ns); err != nil {
			return err
		}
		if joins(ns, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace) {
			return foreign(ns, "a running container of this runtime")
		}
	}
	return nil
}

// joins reports whether a namespace is another container's, of one of some kinds.
func joins(ns specs.LinuxNamespace, kinds ...specs.LinuxNamespaceType) bool {
	for _, kind := range kinds {
		if ns.Type == kind && ns.Path != "" {
			return true
		}
	}
	return false
}

// foreign refuses a namespace that is not in the guest.
func foreign(ns specs.LinuxNamespace, of string) error {
	return fmt.Errorf("join namespaces: the %s namespace %s is not that of %s, and a VM has no others: %w", ns.Type, ns.Path, of, errdefs.ErrInvalidArgument)
}

// ended refuses a namespace of a process that is gone.
func ended(ns specs.LinuxNamespace) error {
	pid, named := bundle.NamespacePID(ns)
	if !named {
		return nil
	}
	if _, err := os.Stat(ns.Path); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("join namespaces: the container with pid %d has ended: %w: %w", pid, err, errdefs.ErrNotFound)
	}
	return nil
}

// Paths are those, in the guest, of the namespaces of other containers that a container
// joins. The sandbox container joins none.
func Paths(ctx context.Context, container string, b *bundle.Bundle, pod Pod) (map[specs.LinuxNamespaceType]string, error) {
	if container == pod.Sandbox {
		return nil, nil //nolint:nilnil // as good as an empty one
	}
	if b.OwnNetwork() {
		log.G(ctx).WithField("container", container).Warnf("the container asks for a network of its own and for namespaces of a container of sandbox %s: it has the network of that VM", pod.Sandbox)
	}
	paths := map[specs.LinuxNamespaceType]string{}
	for _, ns := range b.Spec.Linux.Namespaces {
		owner, err := pod.owner(b, ns)
		if err != nil {
			return nil, err
		}
		if owner == "" || files[ns.Type] == "" {
			continue
		}
		pid, err := pod.initPID(ctx, owner)
		if errdefs.IsNotImplemented(err) {
			continue // an original guest joins none, and refuses what that would weaken
		}
		if err != nil {
			return nil, fmt.Errorf("join namespaces: %w", err)
		}
		paths[ns.Type] = fmt.Sprintf("/proc/%d/ns/%s", pid, files[ns.Type])
	}
	return paths, nil
}

// owner is the id of the container whose namespace is joined, "" when that is the
// guest's own. The specification names it by the container's pid on the host.
func (p Pod) owner(b *bundle.Bundle, ns specs.LinuxNamespace) (string, error) {
	if b.OfPod() {
		return p.ownerInPod(b.Spec, ns)
	}
	if !joins(ns, specs.NetworkNamespace, specs.UserNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace) {
		return "", nil
	}
	pid, named := bundle.NamespacePID(ns)
	if id := p.ByPID(pid); named && id != "" {
		return id, nil
	}
	if err := ended(ns); err != nil {
		return "", err
	}
	return "", foreign(ns, "a running container of sandbox "+p.Sandbox)
}

// ownerInPod is owner for a container of a pod, all of which share the guest's IPC and
// UTS namespaces, or those of the pod's user namespace. A path of a pid namespace that
// names no pid is that of the pod, which some clients keep elsewhere.
func (p Pod) ownerInPod(spec *specs.Spec, ns specs.LinuxNamespace) (string, error) {
	switch {
	case joins(ns, specs.UserNamespace, specs.IPCNamespace, specs.UTSNamespace):
		if bundle.Joins(spec, specs.UserNamespace) {
			return p.Sandbox, nil
		}
	case joins(ns, specs.PIDNamespace):
		pid, named := bundle.NamespacePID(ns)
		if !named {
			return p.Sandbox, nil
		}
		if id := p.ByPID(pid); id != "" {
			return id, nil
		}
		return "", fmt.Errorf("join namespaces: %s is not of a container of this pod: %w", ns.Path, errdefs.ErrInvalidArgument)
	}
	return "", nil
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
