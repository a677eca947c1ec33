package sandbox

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Pod is what a sandbox tells its guest once. It comes from the specification
// of the sandbox's own container.
type Pod struct {
	Hostname string
	DNS      []string
	// Sysctls are set in the guest itself, whose namespaces its containers share.
	Sysctls map[string]string
}

// takePod takes out of a specification what concerns the guest as a whole:
// parameters of namespaces that the container will share with the guest.
func takePod(spec *specs.Spec) Pod {
	pod := Pod{Hostname: spec.Hostname, Sysctls: make(map[string]string)}
	ownIPC := slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.IPCNamespace && ns.Path == ""
	})
	for name, value := range spec.Linux.Sysctl {
		if strings.HasPrefix(name, "net.") || (isIPC(name) && !ownIPC) {
			pod.Sysctls[name] = value
			delete(spec.Linux.Sysctl, name)
		}
	}
	return pod
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
