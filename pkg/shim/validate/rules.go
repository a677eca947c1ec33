package validate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// invalid is what runc refuses, and crun leaves out or takes for something else.
var invalid = []rule{
	{"process.cwd", func(s *specs.Spec) string {
		return first([]string{s.Process.Cwd}, func(dir string) bool { return !filepath.IsAbs(dir) })
	}, "it must be an absolute path"},
	{"process.args", func(s *specs.Spec) string { return first(s.Process.Args, hasNUL) }, "it must not have a zero byte"},
	{"process.env", func(s *specs.Spec) string {
		return first(s.Process.Env, func(v string) bool { return strings.Index(v, "=") < 1 || hasNUL(v) })
	}, "it must be NAME=VALUE, without a zero byte"},
	{"hostname", func(s *specs.Spec) string { return withoutUTS(s, s.Hostname) }, "it needs a UTS namespace"},
	{"domainname", func(s *specs.Spec) string { return withoutUTS(s, s.Domainname) }, "it needs a UTS namespace"},
	{"linux.namespaces", func(s *specs.Spec) string {
		if bundle.HasNamespace(s, specs.MountNamespace) || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) == 0 {
			return ""
		}
		return "without a mount namespace"
	}, "maskedPaths and readonlyPaths need one"},
	{"linux.devices", func(s *specs.Spec) string {
		for _, d := range s.Linux.Devices {
			if !slices.Contains([]string{"c", "u", "b", "p"}, d.Type) {
				return fmt.Sprintf("%s has type %q", d.Path, d.Type)
			}
		}
		return ""
	}, "a device is one of c, u, b and p"},
	{"linux.rootfsPropagation", func(s *specs.Spec) string {
		if slices.Contains([]string{"shared", "slave", "private", "unbindable"}, strings.TrimPrefix(s.Linux.RootfsPropagation, "r")) {
			return ""
		}
		return quoted(s.Linux.RootfsPropagation) // "" is the default
	}, "it is one of shared, slave, private and unbindable, or one of these with an r before it"},
	{"linux.resources.memory.swappiness", func(s *specs.Spec) string {
		if swappiness := valueOf(memory(s).Swappiness); swappiness > 100 {
			return fmt.Sprint(swappiness)
		}
		return ""
	}, "it is from 0 to 100"},
	{"linux.seccomp.flags", func(s *specs.Spec) string {
		known := []specs.LinuxSeccompFlag{
			specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv, "SECCOMP_FILTER_FLAG_TSYNC",
		}
		for _, flag := range seccomp(s).Flags {
			if !slices.Contains(known, flag) {
				return quoted(string(flag))
			}
		}
		return ""
	}, "there is no such flag"},
}

// hasNUL reports whether a text is one that C ends in the middle.
func hasNUL(text string) bool { return strings.ContainsRune(text, 0) }

func withoutUTS(s *specs.Spec, name string) string {
	if bundle.HasNamespace(s, specs.UTSNamespace) {
		return ""
	}
	return quoted(name)
}

// refused is what runc can do, or can on some hosts, and a VM cannot.
var refused = []rule{
	{
		"vm", func(s *specs.Spec) string { return is(s.VM != nil) },
		"a specification does not choose the VM's kernel and image; the configuration does, in [guest]",
	},
	{"process.apparmorProfile", func(s *specs.Spec) string {
		if isDefaultProfile(s.Process.ApparmorProfile) {
			return ""
		}
		return quoted(s.Process.ApparmorProfile)
	}, "the guest has none of the host's profiles; use the runtime's default, of which the VM takes the place"},
	{
		"linux.seccomp.listenerPath", func(s *specs.Spec) string { return quoted(seccomp(s).ListenerPath) },
		"a process of the host cannot answer for system calls in the guest; remove SCMP_ACT_NOTIFY from the profile",
	},
	{"linux.netDevices", func(s *specs.Spec) string {
		for name := range s.Linux.NetDevices {
			return quoted(name)
		}
		return ""
	}, "an interface gets into the VM by way of the pod's network namespace: move it there before the container is created"},
	{
		"linux.intelRdt", func(s *specs.Spec) string { return is(s.Linux.IntelRdt != nil) },
		"the classes of resctrl are of the host's processes; remove the class, or put the shim's into one",
	},
	{
		"linux.memoryPolicy", func(s *specs.Spec) string { return is(s.Linux.MemoryPolicy != nil) },
		"the guest has one memory node; linux.resources.cpu.mems says where on the host its memory is",
	},
	{"linux.personality.flags", func(s *specs.Spec) string {
		return is(len(valueOf(s.Linux.Personality).Flags) > 0)
	}, "the specification defines none"},
	{
		"linux.resources.cpu.realtimeRuntime", func(s *specs.Spec) string { return is(valueOf(cpu(s).RealtimeRuntime) != 0) },
		"the guest has cgroup v2, which has no budgets of real time; process.scheduler sets a real-time policy",
	},
	{
		"linux.resources.cpu.realtimePeriod", func(s *specs.Spec) string { return is(valueOf(cpu(s).RealtimePeriod) != 0) },
		"the guest has cgroup v2, which has no budgets of real time; process.scheduler sets a real-time policy",
	},
	{
		"linux.resources.memory.disableOOMKiller", func(s *specs.Spec) string { return is(valueOf(memory(s).DisableOOMKiller)) },
		"the guest has cgroup v2, which cannot; process.oomScoreAdj spares a process",
	},
	{
		"linux.resources.blockIO.leafWeight", func(s *specs.Spec) string { return is(blockIO(s).LeafWeight != nil) },
		"the guest has cgroup v2, which has none; use weight",
	},
	{"linux.resources.blockIO", func(s *specs.Spec) string {
		io := blockIO(s)
		throttled := len(io.ThrottleReadBpsDevice) + len(io.ThrottleWriteBpsDevice) + len(io.ThrottleReadIOPSDevice) + len(io.ThrottleWriteIOPSDevice)
		return is(len(io.WeightDevice)+throttled > 0)
	}, "limits of a disk are not done yet: files go through the host, whose disks the guest does not have; limit the pod's cgroup there"},
	{
		"linux.resources.network.classID", func(s *specs.Spec) string { return is(valueOf(valueOf(resources(s).Network).ClassID) != 0) },
		"packets of a VM have no class on the host; match the pod's interface instead",
	},
	{"linux.resources.network.priorities", func(s *specs.Spec) string {
		return is(len(valueOf(resources(s).Network).Priorities) > 0)
	}, "packets of a VM have no priority on the host; match the pod's interface instead"},
	{"mounts.type", func(s *specs.Spec) string {
		for _, m := range s.Mounts {
			if !bundle.IsBind(m) && !slices.Contains(guestTypes, m.Type) {
				return fmt.Sprintf("%q at %s", m.Type, m.Destination)
			}
		}
		return ""
	}, "what it mounts is on the host; mount it there, and bind the directory"},
	{"mounts.options", func(s *specs.Spec) string {
		for _, m := range s.Mounts {
			for _, o := range m.Options {
				if slices.Contains(unknownOptions, o) || bundle.IsBind(m) && strings.Contains(o, "=") {
					return fmt.Sprintf("%q at %s", o, m.Destination)
				}
			}
		}
		return ""
	}, "the guest's OCI runtime does not have it"},
}

// guestTypes are file systems that the guest's kernel has of its own.
var guestTypes = []string{
	"proc", "sysfs", "tmpfs", "ramfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "hugetlbfs", "bpf", "debugfs", "tracefs", "securityfs",
	"configfs", "binfmt_misc", "fusectl", "rpc_pipefs", "nsfs",
}

// unknownOptions are those that runc knows and crun takes for the file system's own,
// which a bind mount ignores.
var unknownOptions = []string{
	"nosymfollow", "symfollow", "rnosymfollow", "rsymfollow", "lazytime", "nolazytime", "iversion", "noiversion", "silent", "loud", "acl", "noacl",
}

// replaced are fields that have no effect in a VM because it takes their place, or
// has nothing that they could limit.
var replaced = []rule{
	{field: "process.apparmorProfile", asked: func(s *specs.Spec) string {
		if s.Process.ApparmorProfile == "unconfined" {
			return ""
		}
		return quoted(s.Process.ApparmorProfile)
	}},
	{field: "process.selinuxLabel", asked: func(s *specs.Spec) string { return quoted(s.Process.SelinuxLabel) }},
	{field: "linux.mountLabel", asked: func(s *specs.Spec) string { return quoted(s.Linux.MountLabel) }},
	{field: "linux.resources.rdma", asked: func(s *specs.Spec) string { return is(len(resources(s).Rdma) > 0) }},
	{field: "linux.resources.memory.swappiness", asked: func(s *specs.Spec) string { return is(memory(s).Swappiness != nil) }},
	{field: "linux.resources.memory.kernelTCP", asked: func(s *specs.Spec) string { return is(memory(s).KernelTCP != nil) }},
}

// isDefaultProfile reports whether an AppArmor profile is one that clients give every
// container without being asked: of containerd's CRI, Docker, nerdctl, CRI-O and Podman.
func isDefaultProfile(name string) bool {
	return slices.Contains([]string{"", "unconfined", "cri-containerd.apparmor.d", "docker-default", "nerdctl-default", "crio-default"}, name) ||
		strings.HasPrefix(name, "containers-default-")
}
