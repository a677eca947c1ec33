package compatspec

import (
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Ask is what is asked of a guest: a container or, where Spec has nothing but a process, an exec.
type Ask struct {
	Spec  *specs.Spec
	Binds []string // destinations of the bind mounts that the guest is told of
	// Pause is set for the container of a pod that does nothing. Every client gives it a user, a seccomp
	// profile and a read-only root file system, of which it makes no use.
	Pause bool
	// SharesIPC is set for a container of the IPC namespace of its pod, or of the host. In Spec it has none.
	SharesIPC bool
}

// Missing names what is asked for and a guest of the dialect would silently not do; "" when there
// is nothing of that kind.
func Missing(a Ask, dialect hyperstart.Dialect) string {
	for _, f := range Features {
		if f.of(dialect) == Refused && (!a.Pause || !f.idle) && f.asked(a) {
			return f.Name
		}
	}
	return ""
}

// Unheeded names what is asked for and has no effect with a guest of the dialect, although nobody
// is refused it: clients give it to every container.
func Unheeded(a Ask, dialect hyperstart.Dialect) string {
	var all []string
	for _, f := range Features {
		if f.of(dialect) == Unasked && f.asked(a) {
			all = append(all, f.Name)
		}
	}
	return strings.Join(all, ", ")
}

// MissingOfPod names what a pod asks for and a guest of the dialect would silently not do: a kernel parameter,
// where those that containerd gives every pod on its own are not of them, or a size of /dev/shm in bytes.
func MissingOfPod(sysctls map[string]string, shm int64, dialect hyperstart.Dialect) string {
	for name := range sysctls {
		if name != "net.ipv4.ip_unprivileged_port_start" && name != "net.ipv4.ping_group_range" {
			return "the kernel parameter " + name
		}
	}
	if i := slices.IndexFunc(Features, func(f Feature) bool { return f.Name == largeShm }); shm > usualShm && Features[i].of(dialect) == Refused {
		return largeShm
	}
	return ""
}

// OfProcess is what an exec asks for.
func OfProcess(p *specs.Process) Ask { return Ask{Spec: &specs.Spec{Process: p}} }

func (f Feature) of(dialect hyperstart.Dialect) State {
	switch dialect {
	case hyperstart.DialectHyperhq:
		return f.Hyperhq
	case hyperstart.DialectClearC:
		return f.ClearC
	case hyperstart.DialectClearGo:
		return f.ClearGo
	case hyperstart.DialectUnknown, hyperstart.DialectCCv2:
	}
	return Works
}

// asked reports whether a container or a process asks for the feature.
func (f Feature) asked(a Ask) bool {
	if f.process != nil && a.Spec.Process != nil && f.process(a.Spec.Process) {
		return true
	}
	if f.spec == nil || a.Spec.Linux == nil { // an exec
		return false
	}
	if a.Spec.Linux.Resources == nil {
		whole, linux := *a.Spec, *a.Spec.Linux
		linux.Resources = new(specs.LinuxResources)
		whole.Linux, a.Spec = &linux, &whole
	}
	return f.spec(a)
}

// usual are the capabilities that clients give a process which is not to have others.
var usual = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// dropsCapabilities reports whether a process is to have less than the usual. CRI-O and Podman leave
// out five of them for all containers.
func dropsCapabilities(p *specs.Process) bool {
	if p.Capabilities == nil {
		return false
	}
	for _, name := range usual {
		switch name {
		case "CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE", "CAP_SYS_CHROOT", "CAP_SETFCAP":
			continue
		}
		if !slices.Contains(p.Capabilities.Bounding, name) {
			return true
		}
	}
	return false
}

// hasRlimits reports whether a process has limits other than the one that containerd's client gives all.
func hasRlimits(p *specs.Process) bool {
	return slices.ContainsFunc(p.Rlimits, func(l specs.POSIXRlimit) bool {
		return l != specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}
	})
}

// hides reports whether paths are hidden, or protected, that are not hidden from every container.
func hides(a Ask) bool {
	paths := slices.Concat(a.Spec.Linux.MaskedPaths, a.Spec.Linux.ReadonlyPaths)
	return slices.ContainsFunc(paths, func(p string) bool {
		p = filepath.Clean(p)
		return !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/")
	})
}

// kernelMounts are the file systems that clients give every container. All guests have the first
// six, whatever is asked.
var kernelMounts = map[string][]string{
	"/proc": {"proc"}, "/sys": {"sysfs"}, "/dev": {"tmpfs"}, "/dev/pts": {"devpts"}, "/dev/shm": {"tmpfs"}, "/sys/fs/cgroup": {"cgroup", "cgroup2"},
	"/dev/mqueue": {"mqueue"}, "/run": {"tmpfs"},
}

// mountsOther reports whether there is a mount that a guest is told nothing of.
func mountsOther(a Ask) bool {
	return slices.ContainsFunc(a.Spec.Mounts, func(m specs.Mount) bool {
		if slices.Contains(a.Binds, m.Destination) {
			return false
		}
		return !slices.Contains(kernelMounts[m.Destination], m.Type) && m.Source != hyperstart.ShmMount
	})
}

// mountOptions are what a bind mount can have.
var mountOptions = []string{"bind", "rbind", "ro", "rw", "private", "rprivate", "suid", "dev", "exec", "atime", "relatime", "norelatime", "nostrictatime"}

// hasMountOptions reports whether a bind mount has other options.
func hasMountOptions(a Ask) bool {
	return slices.ContainsFunc(a.Spec.Mounts, func(m specs.Mount) bool {
		return slices.Contains(a.Binds, m.Destination) && slices.ContainsFunc(m.Options, func(o string) bool { return !slices.Contains(mountOptions, o) })
	})
}

// limits reports whether a container has limits that clients do not give all: those of CPU and memory.
func limits(a Ask) bool {
	r := a.Spec.Linux.Resources
	for name := range r.Unified {
		if name != "memory.swap.max" && name != "memory.oom.group" { // of the kubelet, on a node with cgroup v2
			return true
		}
	}
	pages := slices.ContainsFunc(r.HugepageLimits, func(l specs.LinuxHugepageLimit) bool { return l.Limit > 0 })
	processes := r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0
	return pages || processes || r.BlockIO != nil || r.Network != nil || len(r.Rdma) > 0
}
