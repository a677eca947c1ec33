package compatspec

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestMissing: each demand by its name, and what every container has by none.
func TestMissing(t *testing.T) {
	for want, set := range map[string]func(s *specs.Spec){
		"": func(s *specs.Spec) {
			s.Process.Capabilities, s.Linux.Seccomp, s.Linux.MaskedPaths = &specs.LinuxCapabilities{}, &specs.LinuxSeccomp{}, []string{"/proc/kcore"}
			s.Process.User.AdditionalGids, s.Linux.Resources = []uint32{0, 10}, &specs.LinuxResources{Memory: &specs.LinuxMemory{}}
		},
		"a read-only root file system":         func(s *specs.Spec) { s.Root = &specs.Root{Readonly: true} },
		"a hook in the container's namespaces": func(s *specs.Spec) { s.Hooks = new(specs.Hooks) },
		"a user namespace":                     func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}} },
		"a device":                             func(s *specs.Spec) { s.Linux.Devices = make([]specs.LinuxDevice, 1) },
		"a personality":                        func(s *specs.Spec) { s.Linux.Personality = new(specs.LinuxPersonality) },
		"an offset of a clock":                 func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} },
		"a limit by its name in cgroup v2": func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}
		},
		"a umask":                   func(s *specs.Spec) { s.Process.User.Umask = new(uint32) },
		"a scheduling policy":       func(s *specs.Spec) { s.Process.Scheduler = new(specs.Scheduler) },
		"a priority of I/O":         func(s *specs.Spec) { s.Process.IOPriority = new(specs.LinuxIOPriority) },
		"an affinity of processors": func(s *specs.Spec) { s.Process.ExecCPUAffinity = new(specs.CPUAffinity) },
	} {
		spec := &specs.Spec{Process: new(specs.Process), Linux: new(specs.Linux)}
		set(spec)
		if got := Missing(spec, hyperstart.DialectHyperhq); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := Missing(&specs.Spec{Process: new(specs.Process)}, hyperstart.DialectHyperhq); got != "" {
		t.Errorf("without a linux section: %q", got)
	}
}

// TestKubernetes: what containerd's CRI gives the pause container of every pod, and the
// kubelet every container, is not asked for.
func TestKubernetes(t *testing.T) {
	pause := &specs.Spec{Root: &specs.Root{Readonly: true}, Process: &specs.Process{User: specs.User{UID: 65535, GID: 65535}}, Linux: new(specs.Linux)}
	app := &specs.Spec{Process: new(specs.Process), Linux: &specs.Linux{Resources: &specs.LinuxResources{
		Unified: map[string]string{"memory.swap.max": "0", "memory.oom.group": "1"},
	}}}
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectClearC, hyperstart.DialectHyperhq, hyperstart.DialectClearGo} {
		if got := MissingOfPause(pause, dialect); got != "" {
			t.Errorf("%s, pause: %q", dialect, got)
		}
		if got := Missing(pause, dialect); got == "" {
			t.Errorf("%s: a read-only root file system is not refused", dialect)
		}
		if got := Missing(app, dialect); got != "" {
			t.Errorf("%s: %q", dialect, got)
		}
	}
	if !pause.Root.Readonly || pause.Process.User.UID != 65535 {
		t.Error("the specification was changed")
	}
	pause.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}}
	if got := MissingOfPause(pause, hyperstart.DialectClearC); got != "a user namespace" {
		t.Errorf("%q", got)
	}
}

// TestMissingUser: one guest runs everything as root.
func TestMissingUser(t *testing.T) {
	for dialect, want := range map[hyperstart.Dialect]string{
		hyperstart.DialectClearC: "a user other than root", hyperstart.DialectHyperhq: "", hyperstart.DialectClearGo: "",
	} {
		for _, user := range []specs.User{{UID: 5}, {GID: 5}} {
			if got := MissingOfProcess(&specs.Process{User: user}, dialect); got != want {
				t.Errorf("%s, %+v: %q, want %q", dialect, user, got, want)
			}
		}
		if got := MissingOfProcess(&specs.Process{User: specs.User{AdditionalGids: []uint32{0, 10}}}, dialect); got != "" {
			t.Errorf("%s: root is refused: %q", dialect, got)
		}
	}
}
