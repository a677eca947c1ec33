package compatspec

import (
	"cmp"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Missing names what a specification asks for and a guest of the dialect would
// silently not do; "" when there is nothing of that kind. What clients give every
// container (capabilities, seccomp, masked paths, limits) is not of it: no container
// would run.
func Missing(spec *specs.Spec, dialect hyperstart.Dialect) string {
	linux := new(specs.Linux)
	if spec.Linux != nil {
		linux = spec.Linux
	}
	isUser := func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace }
	return cmp.Or(asked([]demand{
		{"a read-only root file system", spec.Root != nil && spec.Root.Readonly},
		{"a hook in the container's namespaces", spec.Hooks != nil},
		{"a user namespace", slices.ContainsFunc(linux.Namespaces, isUser)},
		{"a device", len(linux.Devices) > 0},
		{"a personality", linux.Personality != nil},
		{"an offset of a clock", len(linux.TimeOffsets) > 0},
		{"a limit by its name in cgroup v2", linux.Resources != nil && asksUnified(linux.Resources.Unified)},
	}), MissingOfProcess(spec.Process, dialect))
}

// asksUnified reports whether there is a limit that the kubelet does not give every
// container of a node with cgroup v2.
func asksUnified(unified map[string]string) bool {
	for name := range unified {
		if name != "memory.swap.max" && name != "memory.oom.group" {
			return true
		}
	}
	return false
}

// MissingOfPause is the same for the container of a pod that does nothing. It writes
// nothing, and can be of any user: every client's is of an own one, and has a root file
// system that is read-only.
func MissingOfPause(spec *specs.Spec, dialect hyperstart.Dialect) string {
	pause := *spec
	pause.Root = nil
	process := *spec.Process
	process.User.UID, process.User.GID = 0, 0
	pause.Process = &process
	return Missing(&pause, dialect)
}

// MissingOfProcess is the same for a process. Hyperstart 0.7.0 runs everything as root.
func MissingOfProcess(p *specs.Process, dialect hyperstart.Dialect) string {
	return asked([]demand{
		{"a user other than root", dialect == hyperstart.DialectClearC && (p.User.UID != 0 || p.User.GID != 0)},
		{"a umask", p.User.Umask != nil},
		{"a scheduling policy", p.Scheduler != nil},
		{"a priority of I/O", p.IOPriority != nil},
		{"an affinity of processors", p.ExecCPUAffinity != nil},
	})
}

// demand is something that a specification may ask for.
type demand struct {
	what string
	made bool
}

func asked(all []demand) string {
	for _, d := range all {
		if d.made {
			return d.what
		}
	}
	return ""
}
