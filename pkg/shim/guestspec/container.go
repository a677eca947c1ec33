package guestspec

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// version is what every OCI runtime in a guest accepts: crun of Debian 12
// refuses versions after 1.0, although it ignores what it does not know.
const version = "1.0.2"

// Options are what a specification does not say by itself.
type Options struct {
	ID     string // of the container
	Rootfs string // path of the root file system in the guest
	Shm    string // path of the pod's shared memory in the guest
	// Sandbox is set for the pause container, and for a container that is no
	// pod's: it makes the namespaces that other containers join.
	Sandbox bool
	// Joined has the paths, in the guest, of the namespaces of other containers
	// that this one joins.
	Joined map[specs.LinuxNamespaceType]string
	// Sources has where the guest finds the source of a mount, by the mount's
	// index. A mount that is not there keeps its source.
	Sources map[int]Source
	// Programs has where the guest finds the programs of createContainer hooks, by
	// their paths on the host.
	Programs map[string]string
}

// Container returns the guest's specification of a container. spec, whose Linux
// part is not nil, is not changed; the result shares with it what is the same.
func Container(spec *specs.Spec, o Options) *specs.Spec {
	guest := *spec
	linux := *spec.Linux
	guest.Linux = &linux
	guest.Version = version
	guest.Root = root(spec.Root, o.Rootfs)
	guest.Hooks = guestHooks(spec.Hooks, o.Programs)
	if spec.Process != nil {
		guest.Process = unlabelled(spec.Process)
	}
	guest.Mounts = mounts(spec.Mounts, hasLimit(spec.Linux.Resources), o)
	linux.Namespaces = namespaces(spec, o)
	if !bundle.HasNamespace(&guest, specs.UTSNamespace) {
		guest.Hostname, guest.Domainname = "", "" // the guest has the pod's
	}
	linux.Sysctl = bundle.Sysctls(spec)
	if o.Sandbox {
		maps.DeleteFunc(linux.Sysctl, func(name, _ string) bool {
			_, ofPod := bundle.PodSysctls(spec)[name]
			return ofPod
		})
	}
	linux.Resources = Resources(spec.Linux.Resources)
	linux.IntelRdt = nil  // hardware of the host
	linux.MountLabel = "" // of a security module that the guest does not have
	linux.CgroupsPath = "/ccv2/" + o.ID
	return &guest
}

func root(r *specs.Root, path string) *specs.Root {
	guest := specs.Root{Path: path}
	if r != nil {
		guest.Readonly = r.Readonly
	}
	return &guest
}

// guestHooks keeps the hooks that run in the container's namespaces: startContainer has
// programs of the container, createContainer those of the host, which are exposed.
func guestHooks(h *specs.Hooks, programs map[string]string) *specs.Hooks {
	if h == nil || len(h.CreateContainer)+len(h.StartContainer) == 0 {
		return nil
	}
	guest := &specs.Hooks{StartContainer: h.StartContainer}
	for _, hook := range h.CreateContainer {
		hook.Path = programs[hook.Path]
		guest.CreateContainer = append(guest.CreateContainer, hook)
	}
	return guest
}

// namespaces keeps what separates containers from each other in the guest, and
// drops what separates them from the host, which the VM does. A path names a
// namespace of the host, that is, of the pod: in the guest that is the guest's
// own, or one of a container of the pod, whose path there o.Joined has.
//
// The pause container makes the namespaces that others join, so its IPC and UTS
// namespaces are the guest's, too, but for a pod with a user namespace, which
// would have no rights in those.
func namespaces(spec *specs.Spec, o Options) []specs.LinuxNamespace {
	users := bundle.HasNamespace(spec, specs.UserNamespace)
	var kept []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		shared := o.Sandbox && !users && (ns.Type == specs.IPCNamespace || ns.Type == specs.UTSNamespace)
		if o.Sandbox && ns.Type == specs.UserNamespace {
			ns.Path = "" // some clients keep one on the host; the mappings are there as well
		}
		if shared || ns.Type == specs.NetworkNamespace || (ns.Path != "" && o.Joined[ns.Type] == "") || (ns.Type == specs.TimeNamespace && !ownTime(spec)) {
			continue
		}
		if ns.Path != "" {
			ns.Path = o.Joined[ns.Type]
		}
		kept = append(kept, ns)
	}
	// The guest's own network is what its kernel parameters are set in, which runtimes
	// refuse without a namespace. Those of the sandbox container were set by now.
	if !o.Sandbox && !users && setsNetwork(spec) {
		kept = append(kept, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: guestNetwork})
	}
	// On a host with cgroup v1 a container has no cgroup namespace; in the
	// guest, which has v2, it needs one to see its own group and no other.
	if !bundle.HasNamespace(spec, specs.CgroupNamespace) {
		kept = append(kept, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return kept
}

// ownTime reports whether a container gets a time namespace of its own. Docker gives each one. In one without
// offsets the clocks are the guest's; and crun 1.21 makes a PID namespace with it where there is to be none, and cannot
// where another one is joined.
func ownTime(spec *specs.Spec) bool {
	return len(spec.Linux.TimeOffsets) > 0 || slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.PIDNamespace && ns.Path == ""
	})
}

// guestNetwork is the network namespace of the guest, that of its process 1.
const guestNetwork = "/proc/1/ns/net"

// setsNetwork reports whether a specification has kernel parameters of the network.
func setsNetwork(spec *specs.Spec) bool {
	for name := range bundle.Sysctls(spec) {
		if strings.HasPrefix(name, "net.") {
			return true
		}
	}
	return false
}

// Resources drops limits that name hardware of the host. nil stays nil.
func Resources(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil {
		return nil
	}
	guest := *r
	if r.CPU != nil {
		cpu := *r.CPU
		cpu.Mems = "" // the host's numbering; that of the processors may be the guest's, which looks
		cpu.RealtimePeriod, cpu.RealtimeRuntime = nil, nil
		guest.CPU = &cpu
	}
	guest.Network, guest.Rdma = nil, nil
	if r.BlockIO != nil { // major and minor numbers of the host's disks
		guest.BlockIO = &specs.LinuxBlockIO{Weight: r.BlockIO.Weight}
	}
	if r.Memory != nil {
		memory := *r.Memory
		memory.Kernel, memory.KernelTCP, memory.Swappiness = nil, nil, nil //nolint:staticcheck // cgroup v1 fields that runtimes refuse on v2
		guest.Memory = &memory
	}
	// Device rules stay: they are about numbers that are the same everywhere.
	return &guest
}

// Process returns the guest's specification of an exec process. p is not changed.
func Process(p *specs.Process, terminal bool) *specs.Process {
	guest := unlabelled(p)
	guest.Terminal = terminal
	return guest
}

// unlabelled drops labels of security modules that the guest does not have.
func unlabelled(p *specs.Process) *specs.Process {
	guest := *p
	guest.ApparmorProfile, guest.SelinuxLabel = "", ""
	return &guest
}

// without returns a copy of options without those that drop names.
func without(options []string, drop func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(options), drop)
}
