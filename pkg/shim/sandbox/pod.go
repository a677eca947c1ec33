package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
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
	for name, value := range spec.Linux.Sysctl {
		if strings.HasPrefix(name, "net.") || isIPC(name) {
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

// pidNamespace is the path, in the guest, of the pid namespace that the
// container joins; "" when it has one of its own or the guest's.
func (c *Container) pidNamespace(ctx context.Context) (string, error) {
	if !joinsPIDs(c.spec.Linux) || c.isSandbox() {
		return "", nil
	}
	answer, err := c.sandbox.call(ctx, "listprocesses", "", hyperstart.ContainerRef{Container: c.sandbox.opts.ID})
	if err != nil {
		return "", fmt.Errorf("join the pod's pid namespace: %w", err)
	}
	var list hyperstart.ProcessList
	if err := json.Unmarshal(answer, &list); err != nil {
		return "", fmt.Errorf("join the pod's pid namespace: %w", err)
	}
	for _, p := range list.Processes {
		if p.Process == hyperstart.InitProcess {
			return fmt.Sprintf("/proc/%d/ns/pid", p.PID), nil
		}
	}
	return "", fmt.Errorf("join the pod's pid namespace: the sandbox's own container has ended: %w", errdefs.ErrFailedPrecondition)
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
