package manager

import (
	_ "github.com/containerd/containerd/v2/core/runtime" // registers the type under which features are encoded
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// runtimeFeatures is what the runtime offers to containers, in the form in
// which OCI runtimes report it. containerd's CRI and kubelet decide by it which
// pods they let through.
func runtimeFeatures() *features.Features {
	yes, no := true, false
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: "1.3.0",
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: []string{
			"async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "iversion", "loud",
			"mand", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nomand", "norelatime",
			"nostrictatime", "nosuid", "private", "rbind", "relatime", "remount", "ridmap", "ro", "rprivate", "rro",
			"rshared", "rslave", "runbindable", "rw", "shared", "slave", "strictatime", "suid", "sync",
			"tmpcopyup", "unbindable",
		},
		Linux: &features.Linux{
			// Network is left out: all containers of a pod share the guest's.
			Namespaces: []string{"cgroup", "ipc", "mount", "pid", "user", "uts"},
			Cgroup:     &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no},
			Seccomp:    &features.Seccomp{Enabled: &yes},
			Apparmor:   &features.Apparmor{Enabled: &no},
			Selinux:    &features.Selinux{Enabled: &no},
			// Volumes of pods with user namespaces need this. The host does it,
			// where their file systems are.
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
		},
	}
}
