package validate

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// usual is what every rule lets pass: what clients give a container by themselves.
func usual() *specs.Spec {
	return &specs.Spec{
		Hostname: "h",
		Process: &specs.Process{
			Args: []string{"true"}, Cwd: "/", Env: []string{"A=", "B=1=2"}, ApparmorProfile: "cri-containerd.apparmor.d", SelinuxLabel: "l",
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755", "size=64k"}},
			{Destination: "/data", Type: "bind", Source: "/data", Options: []string{"rbind", "rprivate", "ro"}},
			{Destination: "/more", Source: "/more", Options: []string{"bind", "rro", "rnoatime", "idmap"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}}, RootfsPropagation: "rslave",
			MaskedPaths: []string{"/proc/kcore"}, Devices: []specs.LinuxDevice{{Path: "/dev/x", Type: "c"}},
			Seccomp: &specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}},
			Resources: &specs.LinuxResources{
				Memory:  &specs.LinuxMemory{Swappiness: new(uint64), DisableOOMKiller: new(bool)},
				CPU:     &specs.LinuxCPU{RealtimeRuntime: new(int64), RealtimePeriod: new(uint64)},
				BlockIO: &specs.LinuxBlockIO{Weight: new(uint16)}, Network: &specs.LinuxNetwork{ClassID: new(uint32)},
			},
		},
	}
}

// wrong has for each rule a specification that it is about: the field, as in the
// table, what is set, and what the message says of it.
var wrong = []struct {
	field string
	set   func(s *specs.Spec)
	says  string
}{
	{"process.cwd", func(s *specs.Spec) { s.Process.Cwd = "" }, `""`},
	{"process.cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" }, `"tmp"`},
	{"process.env", func(s *specs.Spec) { s.Process.Env = []string{"A=1", "B"} }, `"B"`},
	{"process.env", func(s *specs.Spec) { s.Process.Env = []string{"=1"} }, `"=1"`},
	{"process.env", func(s *specs.Spec) { s.Process.Env = []string{"A=1\x002"} }, `"A=1\x002"`},
	{"process.args", func(s *specs.Spec) { s.Process.Args = []string{"echo", "a\x00b"} }, `"a\x00b"`},
	{"hostname", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, `"h"`},
	{"domainname", func(s *specs.Spec) { s.Hostname, s.Domainname, s.Linux.Namespaces = "", "d", s.Linux.Namespaces[1:] }, `"d"`},
	{"linux.namespaces", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, "without a mount namespace"},
	{"linux.devices", func(s *specs.Spec) { s.Linux.Devices[0].Type = "x" }, `/dev/x has type "x"`},
	{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "both" }, `"both"`},
	{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "r" }, `"r"`},
	{"linux.resources.memory.swappiness", func(s *specs.Spec) { s.Linux.Resources.Memory.Swappiness = new(uint64(101)) }, "101"},
	{"linux.seccomp.flags", func(s *specs.Spec) { s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{"X"} }, `"X"`},
	{"vm", func(s *specs.Spec) { s.VM = &specs.VM{} }, "is set"},
	{"process.apparmorProfile", func(s *specs.Spec) { s.Process.ApparmorProfile = "mine" }, `"mine"`},
	{"linux.seccomp.listenerPath", func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "/run/l" }, `"/run/l"`},
	{"linux.netDevices", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {}} }, `"eth7"`},
	{"linux.intelRdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "is set"},
	{"linux.memoryPolicy", func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} }, "is set"},
	{"linux.personality.flags", func(s *specs.Spec) {
		s.Linux.Personality = &specs.LinuxPersonality{Flags: []specs.LinuxPersonalityFlag{"x"}}
	}, "is set"},
	{"linux.resources.cpu.realtimeRuntime", func(s *specs.Spec) { s.Linux.Resources.CPU.RealtimeRuntime = new(int64(1)) }, "is set"},
	{"linux.resources.cpu.realtimePeriod", func(s *specs.Spec) { s.Linux.Resources.CPU.RealtimePeriod = new(uint64(1)) }, "is set"},
	{"linux.resources.memory.disableOOMKiller", func(s *specs.Spec) { s.Linux.Resources.Memory.DisableOOMKiller = new(true) }, "is set"},
	{"linux.resources.blockIO.leafWeight", func(s *specs.Spec) { s.Linux.Resources.BlockIO.LeafWeight = new(uint16(1)) }, "is set"},
	{"linux.resources.blockIO", func(s *specs.Spec) {
		s.Linux.Resources.BlockIO.ThrottleReadBpsDevice = []specs.LinuxThrottleDevice{{Rate: 1}}
	}, "is set"},
	{"linux.resources.network.classID", func(s *specs.Spec) { s.Linux.Resources.Network.ClassID = new(uint32(1)) }, "is set"},
	{"linux.resources.network.priorities", func(s *specs.Spec) {
		s.Linux.Resources.Network.Priorities = []specs.LinuxInterfacePriority{{Name: "lo"}}
	}, "is set"},
	{"mounts.type", func(s *specs.Spec) { s.Mounts[1].Type = "overlay" }, `"overlay" at /tmp`},
	{"mounts.destination", at("/proc/", "tmpfs", "tmpfs"), `"/proc/" is for the file system of processes`},
	{"mounts.destination", at("/proc", "bind", "/tmp"), `"/proc" is for the file system of processes`},
	{"mounts.destination", at("proc/self", "bind", "/tmp"), `"proc/self" is inside /proc`},
	{"mounts.destination", at("/tmp/../proc/sys", "bind", "/proc/sys"), `"/tmp/../proc/sys" is inside /proc`},
	{"mounts.destination", at("/proc/sys", "proc", "proc"), `"/proc/sys" is inside /proc`},
	{"mounts.source", at("/dev/null", "bind", "/etc/passwd"), `"/etc/passwd" at /dev/null`},
	{"mounts.source", at("/dev/./null", "bind", "/dev/zero"), `"/dev/zero" at /dev/./null`},
	{"mounts.options", func(s *specs.Spec) { s.Mounts[1].Options = []string{"nosymfollow"} }, `"nosymfollow" at /tmp`},
	{"mounts.options", func(s *specs.Spec) { s.Mounts[2].Options = []string{"rbind", "uid=5"} }, `"uid=5" at /data`},
}

// at adds a mount.
func at(destination, kind, source string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: destination, Type: kind, Source: source})
	}
}

// TestMounts: what may be mounted where processes and the null device are.
func TestMounts(t *testing.T) {
	for name, set := range map[string]func(*specs.Spec){
		"a new proc": at("/proc/", "proc", "proc"), "the kernel's": at("/proc", "bind", "/proc"), "a file of lxcfs": at("/proc/meminfo", "bind", "/etc/passwd"),
		"another name": at("/procfs/x", "bind", "/tmp"), "the null device": at("/dev/null", "bind", "/dev/null"),
		"what is not there": at("/dev/null", "bind", "/no/such/file"),
		"in the host's /dev": func(s *specs.Spec) {
			at("/dev/", "bind", "/dev")(s)
			at("/dev/null", "bind", "/etc/passwd")(s)
		},
	} {
		s := usual()
		set(s)
		if err := Container(t.Context(), "c", &bundle.Bundle{Spec: s}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRules: each rule refuses what it is about, names the field and what is there,
// and gives the class.
func TestRules(t *testing.T) {
	if err := Container(t.Context(), "c", &bundle.Bundle{Spec: usual()}); err != nil {
		t.Fatalf("what clients set by themselves: %v", err)
	}
	tested := make(map[string]bool)
	for _, w := range wrong {
		var class error = errdefs.ErrNotImplemented
		if slices.ContainsFunc(slices.Concat(invalid, invalidMounts), func(r rule) bool { return r.field == w.field }) {
			class = errdefs.ErrInvalidArgument
		}
		s := usual()
		w.set(s)
		err := Container(t.Context(), "c", &bundle.Bundle{Spec: s})
		if !errors.Is(err, class) || !strings.Contains(err.Error(), w.field+" "+w.says+": ") {
			t.Errorf("%s: %v", w.field, err)
		}
		tested[w.field] = true
	}
	for _, r := range slices.Concat(invalid, invalidMounts, refused) {
		if !tested[r.field] || r.why == "" {
			t.Errorf("%s: the rule has no test, or no reason", r.field)
		}
	}
}

// TestProcess: an exec process has the rules of a process, and no others.
func TestProcess(t *testing.T) {
	good := usual().Process
	if err := Process(good); err != nil {
		t.Error(err)
	}
	bad := *good
	bad.ApparmorProfile = "mine"
	if err := Process(&bad); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Error(err)
	}
	if err := Process(&specs.Process{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Error(err)
	}
}

// TestResources: so have limits that come later.
func TestResources(t *testing.T) {
	r, err := Resources([]byte(`{"memory": {"limit": 5}, "rdma": {"x": {}}}`))
	if err != nil || *r.Memory.Limit != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	for text, class := range map[string]error{
		`nonsense`: errdefs.ErrInvalidArgument, `{"memory": {"swappiness": 101}}`: errdefs.ErrInvalidArgument,
		`{"cpu": {"realtimeRuntime": 7}}`: errdefs.ErrNotImplemented, `{"network": {"classID": 7}}`: errdefs.ErrNotImplemented,
	} {
		if _, err := Resources([]byte(text)); !errors.Is(err, class) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestReplaced: what is left out is said.
func TestReplaced(t *testing.T) {
	var out bytes.Buffer
	defer log.L.Logger.SetOutput(log.L.Logger.Out)
	log.L.Logger.SetOutput(&out)
	s := usual()
	s.Linux.Resources.Rdma = map[string]specs.LinuxRdma{"a": {}}
	s.Linux.Resources.Memory.KernelTCP = new(int64)
	s.Linux.MountLabel = "m"
	if err := Container(t.Context(), "c", &bundle.Bundle{Spec: s}); err != nil {
		t.Fatal(err)
	}
	for _, r := range replaced {
		if !strings.Contains(out.String(), r.field+" ") {
			t.Errorf("the log does not name %s: %s", r.field, out.String())
		}
	}
}

// documented reads the table of docs/oci.md: the state of each field.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/oci.md")
	if err != nil {
		t.Fatal(err)
	}
	states := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (works|refused|replaced|not applicable)\\b").FindAllStringSubmatch(string(text), -1) {
		states[m[1]] = m[2]
	}
	return states
}

// TestDocument: docs/oci.md has every field of the specification, and what it says is
// refused or replaced is, and nothing else.
func TestDocument(t *testing.T) {
	states := documented(t)
	fields := make(map[string]bool)
	all := paths(reflect.TypeFor[specs.Spec](), "")
	for i, path := range all {
		fields[path] = true
		if i+1 < len(all) && strings.HasPrefix(all[i+1], path+".") {
			continue // what is below has rows
		}
		if !slices.ContainsFunc(upTo(path), func(p string) bool { return states[p] != "" }) {
			t.Errorf("docs/oci.md says nothing of %s", path)
		}
	}
	for path, state := range states {
		if !fields[path] {
			t.Errorf("docs/oci.md has %s, which the specification has not", path)
		}
		about := func(r rule) bool { return r.field == path }
		if is := slices.ContainsFunc(refused, about) && !slices.ContainsFunc(replaced, about); is != (state == "refused") {
			t.Errorf("docs/oci.md: %s is said to be %s, refused: %v", path, state, is)
		}
		if is := slices.ContainsFunc(replaced, about); is != (state == "replaced") {
			t.Errorf("docs/oci.md: %s is said to be %s, replaced: %v", path, state, is)
		}
	}
	for _, r := range slices.Concat(invalid, invalidMounts, refused, replaced) {
		if !slices.ContainsFunc(upTo(r.field), func(p string) bool { return states[p] != "" }) {
			t.Errorf("docs/oci.md has no row for %s", r.field)
		}
	}
}

// paths are those of all fields below a type, without the numbers of elements.
func paths(typ reflect.Type, path string) []string {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	var all []string
	if path != "" {
		all = append(all, path)
	}
	if typ.Kind() != reflect.Struct {
		return all
	}
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := strings.TrimPrefix(path+"."+name, ".")
		if f.Anonymous {
			below = path
		}
		all = append(all, paths(f.Type, below)...)
	}
	return all
}

// upTo are a path and those above it.
func upTo(path string) []string {
	all := []string{path}
	for i := strings.LastIndexByte(path, '.'); i > 0; i = strings.LastIndexByte(path[:i], '.') {
		all = append(all, path[:i])
	}
	return all
}

// TestPaths: the walk finds fields of all kinds.
func TestPaths(t *testing.T) {
	all := paths(reflect.TypeFor[specs.Spec](), "")
	for _, want := range []string{"ociVersion", "process.rlimits.type", "linux.resources.blockIO.weightDevice.major", "hooks.poststop.timeout", "linux.resources.rdma.hcaHandles"} {
		if !slices.Contains(all, want) {
			t.Errorf("no %s in %d fields", want, len(all))
		}
	}
}
