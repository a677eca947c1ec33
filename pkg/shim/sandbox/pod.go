package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Pod is what a sandbox needs to know before it boots. It comes from the specification
// of the sandbox's own container.
type Pod struct {
	Hostname string
	DNS      []string
	// Sysctls are set in the guest itself, whose namespaces its containers share.
	Sysctls map[string]string
	// CgroupsPath is the sandbox's cgroup on the host, in one of the forms of
	// the OCI specification; "" for none.
	CgroupsPath string
	// ShmSize is the size of the pod's /dev/shm in bytes.
	ShmSize int64
	Network PodNetwork
}

// defaultShmSize is the size of /dev/shm where nobody says otherwise, as in
// other runtimes.
const defaultShmSize = 64 << 20

// takePod takes out of a specification what concerns the guest as a whole:
// parameters of namespaces that the container will share with the guest.
func takePod(spec *specs.Spec) Pod {
	pod := Pod{Hostname: spec.Hostname, Sysctls: make(map[string]string), CgroupsPath: spec.Linux.CgroupsPath, ShmSize: shmSize(spec), Network: networkOf(spec)}
	ownIPC := hasNamespace(spec.Linux, specs.UserNamespace)
	for name, value := range spec.Linux.Sysctl {
		if strings.HasPrefix(name, "net.") || isIPC(name) && !ownIPC {
			pod.Sysctls[name] = value
			delete(spec.Linux.Sysctl, name)
		}
	}
	return pod
}

// shmSize is the size of the tmpfs that the host has for the pod.
func shmSize(spec *specs.Spec) int64 {
	for _, m := range spec.Mounts {
		var st unix.Statfs_t
		if isShm(m) && unix.Statfs(m.Source, &st) == nil && st.Type == unix.TMPFS_MAGIC {
			return int64(st.Blocks) * st.Bsize
		}
	}
	return defaultShmSize
}

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
	if joins(c.spec.Linux, specs.UserNamespace) { // the pod's, which owns these too
		err := join(c.sandbox.opts.ID, map[specs.LinuxNamespaceType]string{
			specs.UserNamespace: "user", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		})
		if err != nil {
			return nil, err
		}
	}
	if joins(c.spec.Linux, specs.PIDNamespace) {
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
	for _, ns := range c.spec.Linux.Namespaces {
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

// isIPC reports whether a kernel parameter belongs to the IPC namespace.
func isIPC(sysctl string) bool {
	switch sysctl {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(sysctl, "fs.mqueue.")
}
