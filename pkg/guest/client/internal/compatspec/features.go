package compatspec

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// State is what a guest does of a feature.
type State string

// The states.
const (
	Works   State = "works"
	Refused State = "refused"
	// Unasked has no effect, which a warning says: clients give it to every container, so that
	// none would run were it refused.
	Unasked State = "no effect"
)

// Feature is something that a specification can ask for, and what the three original guests do of it:
// hyperstart 1.1.0, 0.7.0 and the Go agent.
type Feature struct {
	Name                     string
	Hyperhq, ClearC, ClearGo State

	process func(*specs.Process) bool // of a container or an exec
	spec    func(Ask) bool            // of a container; its Resources are not nil
	idle    bool                      // a container that does nothing does not need it
}

// Features is the one table of what original guests do; docs/oci.md has it as well. What is
// not in it works, or is refused with every guest.
var Features = []Feature{
	{"a user other than root", Works, Refused, Works, func(p *specs.Process) bool { return p.User.UID != 0 || p.User.GID != 0 }, nil, true},
	{"additional groups", Works, Unasked, Works, hasGroups, nil, true},
	{"a umask", Refused, Refused, Refused, func(p *specs.Process) bool { return p.User.Umask != nil }, nil, true},
	{"limits of a process (rlimits)", Refused, Refused, Refused, hasRlimits, nil, false},
	{"no capabilities at all", Refused, Refused, Refused, func(p *specs.Process) bool { return p.Capabilities != nil && len(p.Capabilities.Bounding) == 0 }, nil, true},
	{"fewer capabilities than usual", Refused, Refused, Works, dropsCapabilities, nil, true},
	{"the usual capabilities", Unasked, Unasked, Works, func(p *specs.Process) bool { return p.Capabilities != nil }, nil, true},
	{"noNewPrivileges", Unasked, Unasked, Works, func(p *specs.Process) bool { return p.NoNewPrivileges }, nil, true},
	{"a score for the OOM killer", Unasked, Unasked, Unasked, func(p *specs.Process) bool { return p.OOMScoreAdj != nil && *p.OOMScoreAdj != 0 }, nil, true},
	{"a scheduling policy", Refused, Refused, Refused, func(p *specs.Process) bool { return p.Scheduler != nil }, nil, false},
	{"a priority of I/O", Refused, Refused, Refused, func(p *specs.Process) bool { return p.IOPriority != nil }, nil, false},
	{"an affinity of processors", Refused, Refused, Refused, func(p *specs.Process) bool { return p.ExecCPUAffinity != nil }, nil, false},
	{"a read-only root file system", Refused, Refused, Refused, nil, func(a Ask) bool { return a.Spec.Root != nil && a.Spec.Root.Readonly }, true},
	{"a mount that is no bind mount of the host", Refused, Refused, Refused, nil, mountsOther, false},
	{"an option of a mount other than ro", Refused, Refused, Refused, nil, hasMountOptions, false},
	{"a hook in the container's namespaces", Refused, Refused, Refused, nil, func(a Ask) bool { return a.Spec.Hooks != nil }, false},
	{"a domain name", Refused, Refused, Refused, nil, func(a Ask) bool { return a.Spec.Domainname != "" }, false},
	{"a user namespace", Refused, Refused, Refused, nil, hasUserNamespace, false},
	{"a pid namespace of its own", Unasked, Unasked, Works, nil, hasPIDNamespace, true},
	{"the pid namespace of the pod, or of the host", Works, Works, Refused, nil, func(a Ask) bool { return !hasPIDNamespace(a) }, false},
	{"the IPC namespace and /dev/shm of the pod, or of the host", Works, Works, Unasked, nil, func(a Ask) bool { return a.SharesIPC }, true},
	{largeShm, Works, Works, Refused, nil, asksLargeShm, false},
	{"an offset of a clock", Refused, Refused, Refused, nil, func(a Ask) bool { return len(a.Spec.Linux.TimeOffsets) > 0 }, false},
	{"a seccomp profile", Refused, Refused, Refused, nil, func(a Ask) bool { return a.Spec.Linux.Seccomp != nil }, true},
	{"a kernel parameter (sysctl)", Refused, Refused, Refused, nil, func(a Ask) bool { return len(a.Spec.Linux.Sysctl) > 0 }, false},
	{"a device", Refused, Refused, Refused, nil, func(a Ask) bool { return len(a.Spec.Linux.Devices) > 0 }, false},
	{"a personality", Refused, Refused, Refused, nil, func(a Ask) bool { return a.Spec.Linux.Personality != nil }, false},
	{"a hidden or read-only path outside of /proc and /sys", Refused, Refused, Refused, nil, hides, false},
	{"the usual hidden and read-only paths", Unasked, Unasked, Unasked, nil, hidesUsual, true},
	{"limits of CPU and memory", Unasked, Unasked, Unasked, nil, limitsUsual, true},
	{"another limit", Refused, Refused, Refused, nil, limits, false},
}

// hasGroups reports whether a process has more groups than its own. Clients add those that the image gives
// its user, so that nobody can tell what was asked for.
func hasGroups(p *specs.Process) bool {
	return slices.ContainsFunc(p.User.AdditionalGids, func(gid uint32) bool { return gid != p.User.GID })
}

func hasUserNamespace(a Ask) bool { return hasNamespace(a, specs.UserNamespace) }

func hasPIDNamespace(a Ask) bool { return hasNamespace(a, specs.PIDNamespace) }

func hasNamespace(a Ask, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(a.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func hidesUsual(a Ask) bool { return len(a.Spec.Linux.MaskedPaths)+len(a.Spec.Linux.ReadonlyPaths) > 0 }

func limitsUsual(a Ask) bool {
	r := a.Spec.Linux.Resources
	return r.CPU != nil || r.Memory != nil
}
