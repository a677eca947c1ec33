package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Pod is what a sandbox has to know before it boots. It comes from the
// specification of the pause container, or of a container that is no pod's.
type Pod struct {
	Name     PodName
	Hostname string
	DNS      []string
	// Sysctls are set in the guest itself, whose namespaces its containers share.
	Sysctls map[string]string
	// CgroupsPath is the sandbox's cgroup on the host, in one of the forms of
	// the OCI specification; "" for none.
	CgroupsPath string
	// Limits are those of a container that is no pod's, which are the sandbox's. nil
	// for a pod, whose own cgroup bounds it.
	Limits *specs.LinuxResources
	// ShmSize is the size of the pod's /dev/shm in bytes.
	ShmSize int64
	Network Network
	// ResolvConf is the file of the host that is mounted on /etc/resolv.conf; "" for none.
	ResolvConf string
}

// PodName is what people call a pod; empty for a container that is no pod's.
type PodName struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// Network says where the network of a pod is. The zero value is a new network
// namespace, which may get its interfaces later.
type Network struct {
	Path string // of the network namespace; "" for a new one
	Own  bool   // the namespace is a pod's, in which no other processes live
	Host bool   // a pod asks for the host's network
	// NotHost is set when a container that is no pod's asks for it, or says nothing:
	// it gets a new namespace.
	NotHost bool
}

// defaultShmSize is the size of /dev/shm where nothing else is said, as in
// other runtimes.
const defaultShmSize = 64 << 20

// Pod reads what concerns the guest as a whole.
func (b *Bundle) Pod() Pod {
	return Pod{
		Name: b.podName(), Hostname: hostname(b.Spec), Sysctls: PodSysctls(b.Spec), CgroupsPath: b.Spec.Linux.CgroupsPath,
		Limits: b.hostLimits(), ShmSize: b.shmSize(), Network: b.network(), ResolvConf: b.mounted("/etc/resolv.conf"),
	}
}

// mounted is the source of the last bind mount on a destination.
func (b *Bundle) mounted(destination string) (source string) {
	for _, m := range b.Spec.Mounts {
		if filepath.Clean(m.Destination) == destination && IsBind(m) {
			source = m.Source
		}
	}
	return source
}

// hostname is the host's where the specification has none: a new UTS namespace
// begins with the name of its creator's, and one may ask for the host's own.
func hostname(spec *specs.Spec) string {
	if spec.Hostname != "" {
		return spec.Hostname
	}
	name, err := os.Hostname()
	if err != nil {
		return "" // the guest has a name of its own
	}
	return name
}

func (b *Bundle) hostLimits() *specs.LinuxResources {
	switch {
	case b.IsPodSandbox():
		return nil
	case b.Spec.Linux.Resources == nil:
		return new(specs.LinuxResources)
	}
	return b.Spec.Linux.Resources
}

// PodSysctls are the kernel parameters of namespaces that the pause container
// shares with the guest, so that they are set there and not by its OCI runtime.
func PodSysctls(spec *specs.Spec) map[string]string {
	own := HasNamespace(spec, specs.UserNamespace)
	sysctls := make(map[string]string)
	if spec.Domainname != "" && !own {
		sysctls["kernel.domainname"] = spec.Domainname
	}
	for name, value := range Sysctls(spec) {
		if strings.HasPrefix(name, "net.") || isShared(name) && !own {
			sysctls[name] = value
		}
	}
	return sysctls
}

// Sysctls are the kernel parameters of a specification by their names with dots.
// sysctl(8) has them with slashes, too: when the first separator is one, a dot is part
// of a name, as in net/ipv4/conf/eth0.5/forwarding.
func Sysctls(spec *specs.Spec) map[string]string {
	if spec.Linux.Sysctl == nil {
		return nil
	}
	dotted := make(map[string]string, len(spec.Linux.Sysctl))
	for name, value := range spec.Linux.Sysctl {
		if first := strings.IndexAny(name, "./"); first >= 0 && name[first] == '/' {
			name = strings.NewReplacer("/", ".", ".", "/").Replace(name)
		}
		dotted[name] = value
	}
	return dotted
}

// isShared reports whether a kernel parameter belongs to the IPC or UTS
// namespace.
func isShared(sysctl string) bool {
	switch sysctl {
	case "kernel.domainname", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(sysctl, "fs.mqueue.")
}

// network reads the network. Without a namespace of its own a container would
// be in the host's network, which the guest cannot be: for a pod that is what
// was asked for, and it is refused; a container that is no pod's says nothing
// by that as a rule, and gets one of its own.
func (b *Bundle) network() Network {
	pod := b.IsPodSandbox()
	for _, ns := range b.Spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return Network{Path: ns.Path, Own: pod}
		}
	}
	return Network{Host: pod, NotHost: !pod}
}

// shmSize is the size of the tmpfs that the host has for the pod.
func (b *Bundle) shmSize() int64 {
	for _, m := range b.Spec.Mounts {
		var st unix.Statfs_t
		if IsPodShm(m) && unix.Statfs(m.Source, &st) == nil && st.Type == unix.TMPFS_MAGIC {
			return int64(st.Blocks) * st.Bsize
		}
	}
	return defaultShmSize
}

// HasNamespace reports whether a specification has a namespace of a kind, new or joined.
func HasNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == kind })
}

// Joins reports whether a container joins a namespace of another one.
func Joins(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == kind && ns.Path != ""
	})
}

// SharesIPC reports whether a container has the IPC namespace of another one, or the host's.
func (b *Bundle) SharesIPC() bool {
	return !HasNamespace(b.Spec, specs.IPCNamespace) || Joins(b.Spec, specs.IPCNamespace)
}

// OwnNetwork reports whether a container of no pod asks for a network of its own.
func (b *Bundle) OwnNetwork() bool {
	return !b.OfPod() && slices.ContainsFunc(b.Spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.NetworkNamespace && ns.Path == ""
	})
}

// NamespacePID is the pid of the process that a namespace is named by, which is
// /proc/PID/ns/KIND; ok is false for one that is new or has another path.
func NamespacePID(ns specs.LinuxNamespace) (pid int, ok bool) {
	rest, ok := strings.CutPrefix(ns.Path, "/proc/")
	if !ok {
		return 0, false
	}
	text, _, ok := strings.Cut(rest, "/ns/")
	pid, err := strconv.Atoi(text)
	if !ok || err != nil {
		return 0, false
	}
	return pid, true
}

// IsBind reports whether a mount shows something of the host.
func IsBind(m specs.Mount) bool {
	if m.Type == "bind" || m.Type == "none" {
		return true
	}
	return slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// shmPath is where shared memory is.
const shmPath = "/dev/shm"

// IsPodShm reports whether a mount is the shared memory of the pod: what those that make
// pods and containers mount for it, a tmpfs that they call "shm" (nerdctl: "/dev/shm"), or the host's.
// A volume may be mounted there as well.
func IsPodShm(m specs.Mount) bool {
	if filepath.Clean(m.Destination) != shmPath || !IsBind(m) {
		return false
	}
	if filepath.Clean(m.Source) == shmPath {
		return true
	}
	path, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return false // whoever needs it says so
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	return err == nil && len(mounts) == 1 && mounts[0].FSType == "tmpfs" && (mounts[0].Source == "shm" || mounts[0].Source == shmPath)
}
