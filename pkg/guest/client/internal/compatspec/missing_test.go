package compatspec

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

var dialects = []hyperstart.Dialect{hyperstart.DialectHyperhq, hyperstart.DialectClearC, hyperstart.DialectClearGo}

// plain is what containerd's own client gives a container of which nothing else is asked.
func plain() Ask {
	caps := append([]string(nil), usual...)
	return Ask{
		Binds: []string{"/etc/hosts"},
		Spec: &specs.Spec{
			Root: &specs.Root{Path: "r"},
			Process: &specs.Process{
				Args: []string{"sh"}, Cwd: "/w", Env: []string{"A=b"}, NoNewPrivileges: true, User: specs.User{AdditionalGids: []uint32{0}},
				Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
				Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
			},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc"},
				{Destination: "/dev", Type: "tmpfs"},
				{Destination: "/dev/pts", Type: "devpts"},
				{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"nosuid", "size=65536k"}},
				{Destination: "/dev/mqueue", Type: "mqueue"},
				{Destination: "/sys", Type: "sysfs"},
				{Destination: "/run", Type: "tmpfs"},
				{Destination: "/etc/hosts", Type: "bind", Source: "/run/x", Options: []string{"rbind", "rprivate", "ro"}},
				{Destination: "/dev/shm", Type: "bind", Source: hyperstart.ShmMount, Options: []string{"rbind", "nosuid"}},
			},
			Linux: &specs.Linux{
				MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
				Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"}},
				Resources: &specs.LinuxResources{ // of the kubelet
					Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}, CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{},
					Unified: map[string]string{"memory.swap.max": "0", "memory.oom.group": "1"}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}},
				},
			},
		},
	}
}

// demands ask for one feature each.
var demands = map[string]func(*Ask){
	"a user other than root": func(a *Ask) { a.Spec.Process.User.GID = 5 },
	"a umask":                func(a *Ask) { a.Spec.Process.User.Umask = new(uint32) },
	"additional groups":      func(a *Ask) { a.Spec.Process.User.AdditionalGids = []uint32{0, 2000} },
	"the IPC namespace and /dev/shm of the pod, or of the host": func(a *Ask) { a.SharesIPC = true },
	"a /dev/shm of more than 64 MiB":                            func(a *Ask) { a.Spec.Mounts[3].Options = []string{"nosuid", "size=65537k"} },
	"limits of a process (rlimits)":                             func(a *Ask) { a.Spec.Process.Rlimits[0].Soft = 512 },
	"no capabilities at all":                                    func(a *Ask) { a.Spec.Process.Capabilities = &specs.LinuxCapabilities{} },
	"fewer capabilities than usual":                             func(a *Ask) { a.Spec.Process.Capabilities.Bounding = []string{"CAP_KILL"} },
	"a scheduling policy":                                       func(a *Ask) { a.Spec.Process.Scheduler = new(specs.Scheduler) },
	"a priority of I/O":                                         func(a *Ask) { a.Spec.Process.IOPriority = new(specs.LinuxIOPriority) },
	"an affinity of processors":                                 func(a *Ask) { a.Spec.Process.ExecCPUAffinity = new(specs.CPUAffinity) },
	"a read-only root file system":                              func(a *Ask) { a.Spec.Root.Readonly = true },
	"a mount that is no bind mount of the host":                 func(a *Ask) { a.Spec.Mounts[6].Destination = "/cache" },
	"an option of a mount other than ro":                        func(a *Ask) { a.Spec.Mounts[7].Options = []string{"rbind", "noexec"} },
	"a hook in the container's namespaces":                      func(a *Ask) { a.Spec.Hooks = new(specs.Hooks) },
	"a domain name":                                             func(a *Ask) { a.Spec.Domainname = "d" },
	"a user namespace":                                          func(a *Ask) { a.Spec.Linux.Namespaces[1].Type = specs.UserNamespace },
	"a pid namespace of its own":                                func(*Ask) {},
	"the pid namespace of the pod, or of the host":              func(a *Ask) { a.Spec.Linux.Namespaces = nil },
	"an offset of a clock":                                      func(a *Ask) { a.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} },
	"a seccomp profile":                                         func(a *Ask) { a.Spec.Linux.Seccomp = new(specs.LinuxSeccomp) },
	"a kernel parameter (sysctl)":                               func(a *Ask) { a.Spec.Linux.Sysctl = map[string]string{"kernel.shmmni": "1"} },
	"a device":                                                  func(a *Ask) { a.Spec.Linux.Devices = make([]specs.LinuxDevice, 1) },
	"a personality":                                             func(a *Ask) { a.Spec.Linux.Personality = new(specs.LinuxPersonality) },
	"a hidden or read-only path outside of /proc and /sys":      func(a *Ask) { a.Spec.Linux.MaskedPaths = []string{"/etc/secret"} },
	"another limit":                                             func(a *Ask) { a.Spec.Linux.Resources.HugepageLimits[0].Limit = 1 },
	"a score for the OOM killer":                                func(a *Ask) { n := 5; a.Spec.Process.OOMScoreAdj = &n },
	"the usual capabilities":                                    func(*Ask) {}, "noNewPrivileges": func(*Ask) {}, "the usual hidden and read-only paths": func(*Ask) {}, "limits of CPU and memory": func(*Ask) {},
}

// TestFeatures asks each guest for each feature by itself: it works, is refused by its name, or is
// named in a warning.
func TestFeatures(t *testing.T) {
	for _, f := range Features {
		demand, ok := demands[f.Name]
		if !ok {
			t.Errorf("%s: nothing asks for it", f.Name)
			continue
		}
		for _, dialect := range dialects {
			a := plain()
			demand(&a)
			want := ""
			if f.of(dialect) == Refused {
				want = f.Name
			}
			if got := Missing(a, dialect); got != want {
				t.Errorf("%s, %s: %q is refused, want %q", dialect, f.Name, got, want)
			}
			if got := strings.Contains(Unheeded(a, dialect), f.Name); got != (f.of(dialect) == Unasked) {
				t.Errorf("%s, %s: warned %t", dialect, f.Name, got)
			}
		}
	}
	if len(demands) != len(Features) {
		t.Errorf("%d demands for %d features", len(demands), len(Features))
	}
}

// TestPlain: what every container has is refused by none, with a section of Linux or without.
func TestPlain(t *testing.T) {
	for _, dialect := range append(dialects, hyperstart.DialectCCv2) {
		for name, a := range map[string]Ask{
			"container": plain(), "exec": OfProcess(plain().Spec.Process), "bare": {Spec: &specs.Spec{}}, "without resources": {Spec: &specs.Spec{Linux: &specs.Linux{Namespaces: plain().Spec.Linux.Namespaces}}},
		} {
			if got := Missing(a, dialect); got != "" {
				t.Errorf("%s, %s: %q", dialect, name, got)
			}
		}
	}
	if got := Unheeded(plain(), hyperstart.DialectCCv2); got != "" {
		t.Errorf("%q", got)
	}
	exec := OfProcess(&specs.Process{User: specs.User{UID: 1}})
	if got := Missing(exec, hyperstart.DialectClearC); got != "a user other than root" {
		t.Errorf("exec: %q", got)
	}
}

// TestMore are other forms of what is asked for.
func TestMore(t *testing.T) {
	limit, one := int64(1), int64(1)
	for name, tt := range map[string]struct {
		change func(*specs.Spec)
		want   string
	}{
		"a kernel's directory": {func(s *specs.Spec) { s.Mounts[7].Destination = "/cgroup" }, "a mount that is no bind mount of the host"},
		"hugetlbfs":            {func(s *specs.Spec) { s.Mounts[6].Type = "hugetlbfs" }, "a mount that is no bind mount of the host"},
		"pids":                 {func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit} }, "another limit"},
		"no pids":              {func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{} }, ""},
		"unified":              {func(s *specs.Spec) { s.Linux.Resources.Unified["memory.high"] = "1" }, "another limit"},
		"disks":                {func(s *specs.Spec) { s.Linux.Resources.BlockIO = new(specs.LinuxBlockIO) }, "another limit"},
		"memory":               {func(s *specs.Spec) { s.Linux.Resources.Memory.Limit = &one }, ""},
		"all capabilities": {func(s *specs.Spec) {
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
		}, ""},
		"few capabilities": {func(s *specs.Spec) { s.Process.Capabilities.Bounding = usual[:4:4] }, "fewer capabilities than usual"},
		"capabilities of CRI-O": {func(s *specs.Spec) {
			s.Process.Capabilities.Bounding = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
		}, ""},
		"another rlimit": {func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_CORE" }, "limits of a process (rlimits)"},
	} {
		a := plain()
		tt.change(a.Spec)
		if got := Missing(a, hyperstart.DialectHyperhq); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestPause: what containerd's CRI gives the pause container of every pod is not asked for; what a
// pod asks for is.
func TestPause(t *testing.T) {
	pause := plain()
	pause.Pause = true
	pause.Spec.Root.Readonly, pause.Spec.Linux.Seccomp, pause.Spec.Process.User = true, new(specs.LinuxSeccomp), specs.User{UID: 65535, GID: 65535}
	for _, dialect := range dialects {
		if got := Missing(pause, dialect); got != "" {
			t.Errorf("%s: %q", dialect, got)
		}
		working := pause
		working.Pause = false
		if Missing(working, dialect) == "" {
			t.Errorf("%s: another container is not refused that", dialect)
		}
	}
	pause.Spec.Linux.Namespaces[1].Type = specs.UserNamespace
	if got := Missing(pause, hyperstart.DialectClearC); got != "a user namespace" {
		t.Errorf("%q", got)
	}
	for want, sysctls := range map[string]map[string]string{
		"": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 1"}, "the kernel parameter kernel.shmmni": {"kernel.shmmni": "1"},
	} {
		if got := MissingOfPod(sysctls, 64<<20, hyperstart.DialectClearGo); got != want {
			t.Errorf("%v: %q", sysctls, got)
		}
	}
}

// TestShm: the Go agent gives every container 64 MiB, the others what the guest's memory holds.
func TestShm(t *testing.T) {
	const more = "a /dev/shm of more than 64 MiB"
	for option, want := range map[string]string{
		"size=64m": "", "size=67108864": "", "size=1k": "", "size=100%": "", "mode=1777": "", "size=65M": more, "size=67108865": more, "size=1g": more, "size=50%": more,
		"size=99999999999999999999": more, "size=99999999999999999g": more, "nr_blocks=99999": more, "size=": more,
	} {
		a := plain()
		a.Spec.Mounts[3].Destination, a.Spec.Mounts[3].Options = "/dev/shm", []string{"nosuid", option}
		if got := Missing(a, hyperstart.DialectClearGo); got != want {
			t.Errorf("%s: %q", option, got)
		}
	}
	for dialect, want := range map[hyperstart.Dialect]string{hyperstart.DialectClearC: "", hyperstart.DialectHyperhq: "", hyperstart.DialectClearGo: more} {
		if got := MissingOfPod(nil, 64<<20+1, dialect); got != want {
			t.Errorf("%s: %q", dialect, got)
		}
	}
}

// TestHidden: a path is what it leads to.
func TestHidden(t *testing.T) {
	for path, want := range map[string]string{
		"/proc/../etc/x": "a hidden or read-only path outside of /proc and /sys", "/sys/./../../proc/": "a hidden or read-only path outside of /proc and /sys",
		"/proc/./kcore": "", "//proc/kcore": "", "/tmp/../sys/firmware": "",
	} {
		a := plain()
		a.Spec.Linux.ReadonlyPaths = []string{path}
		if got := Missing(a, hyperstart.DialectHyperhq); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// TestDocumented: docs/oci.md has the table, row by row.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../../../docs/oci.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## With an original guest\n")
	if !ok {
		t.Fatal("docs/oci.md has no section about original guests")
	}
	var got, want []string
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| ") && !strings.Contains(line, "hyperstart 1.1.0") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	for _, f := range Features {
		want = append(want, fmt.Sprintf("| %s | %s | %s | %s |", f.Name, f.Hyperhq, f.ClearC, f.ClearGo))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/oci.md (-want +got):\n%s", diff)
	}
}
