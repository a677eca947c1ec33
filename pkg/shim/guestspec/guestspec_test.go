package guestspec

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// options of a container of a pod.
var options = Options{ID: "c", Rootfs: "/share/c/rootfs", Shm: "/shm"}

func sandboxOptions() Options {
	o := options
	o.Sandbox = true
	return o
}

// full has everything that a rule is about.
func full() *specs.Spec {
	quota, weight, swappiness := int64(1), uint16(7), uint64(60)
	return &specs.Spec{
		Version: "1.2.0", Hostname: "h", Domainname: "d",
		Process: &specs.Process{Args: []string{"a"}, ApparmorProfile: "p", SelinuxLabel: "l"},
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Hooks:   &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/x"}}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/data", Type: "bind", Source: "/host/data", Options: []string{"rbind", "ro", "rshared", "idmap"}, UIDMappings: []specs.LinuxIDMapping{{Size: 1}}},
			{Destination: "/dev/shm", Type: "bind", Source: "/host/shm", Options: []string{"rbind"}},
			{Destination: "/huge", Type: "bind", Source: "/host/huge", Options: []string{"rbind"}},
		},
		Linux: &specs.Linux{
			Sysctl: map[string]string{"net.a": "1", "kernel.shmmax": "2", "other": "3"},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace, Path: "/n"},
				{Type: specs.IPCNamespace, Path: "/i"},
				{Type: specs.UTSNamespace, Path: "/u"},
				{Type: specs.MountNamespace},
			},
			Resources: &specs.LinuxResources{
				CPU:     &specs.LinuxCPU{Quota: &quota, Cpus: "0-3", Mems: "0", RealtimeRuntime: &quota},
				Memory:  &specs.LinuxMemory{Limit: &quota, Swappiness: &swappiness},
				BlockIO: &specs.LinuxBlockIO{Weight: &weight, ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{Rate: 1}}},
				Network: &specs.LinuxNetwork{}, Rdma: map[string]specs.LinuxRdma{"a": {}},
			},
			IntelRdt: &specs.LinuxIntelRdt{}, MountLabel: "l", CgroupsPath: "/kubepods/x",
		},
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestContainer is the whole of a container that uses every rule, and leaves
// what it was made from as it was.
func TestContainer(t *testing.T) {
	spec := full()
	before := asJSON(t, spec)
	o := sandboxOptions()
	o.Sources = map[int]Source{1: {Path: "/share/.volumes/0", ReadOnly: true}, 3: {Kernel: bundle.Kernel{HugePages: 2 << 20}}}
	got := Container(spec, o)
	if after := asJSON(t, spec); after != before {
		t.Errorf("the specification was changed (-before +after):\n%s", cmp.Diff(before, after))
	}
	quota, weight := int64(1), uint16(7)
	want := &specs.Spec{
		Version: version,
		Process: &specs.Process{Args: []string{"a"}},
		Root:    &specs.Root{Path: "/share/c/rootfs", Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/data", Type: "bind", Source: "/share/.volumes/0", Options: []string{"rbind", "ro"}},
			{Destination: "/dev/shm", Type: "bind", Source: "/shm", Options: []string{"rbind"}},
			{Destination: "/huge", Type: "hugetlbfs", Source: "nodev", Options: []string{"pagesize=2097152"}},
		},
		Linux: &specs.Linux{
			Sysctl:     map[string]string{"other": "3"},
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace}},
			Resources: &specs.LinuxResources{
				CPU: &specs.LinuxCPU{Quota: &quota, Cpus: "0-3"}, Memory: &specs.LinuxMemory{Limit: &quota}, BlockIO: &specs.LinuxBlockIO{Weight: &weight},
			},
			CgroupsPath: "/ccv2/c",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDomainname: the names are those of a container with a UTS namespace of its own.
func TestDomainname(t *testing.T) {
	spec := &specs.Spec{Hostname: "h", Domainname: "d", Linux: &specs.Linux{}}
	if got := Container(spec, Options{}); got.Domainname != "" || got.Linux.Sysctl != nil {
		t.Errorf("in the guest's namespace: domain name %q, kernel parameters %v", got.Domainname, got.Linux.Sysctl)
	}
	spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UTSNamespace}}
	if got := Container(spec, Options{}); got.Domainname != "d" || got.Hostname != "h" {
		t.Errorf("with a namespace: host name %q, domain name %q", got.Hostname, got.Domainname)
	}
}

func TestNamespaces(t *testing.T) {
	type list = []specs.LinuxNamespace
	cgroup := specs.LinuxNamespace{Type: specs.CgroupNamespace}
	for _, test := range []struct {
		name    string
		sandbox bool
		joined  map[specs.LinuxNamespaceType]string
		in      list
		want    list
		keeps   bool // the hostname
	}{
		{"none", false, nil, nil, list{cgroup}, false},
		{"the network is the guest's", false, nil, list{{Type: specs.NetworkNamespace}, {Type: specs.NetworkNamespace, Path: "/x"}}, list{cgroup}, false},
		{"one of its own", false, nil, list{{Type: specs.UTSNamespace}, cgroup}, list{{Type: specs.UTSNamespace}, cgroup}, true},
		{"of time", false, nil, list{{Type: specs.TimeNamespace}, {Type: specs.PIDNamespace}}, list{{Type: specs.TimeNamespace}, {Type: specs.PIDNamespace}, cgroup}, false},
		{"of time, with the pod's processes", false, nil, list{{Type: specs.TimeNamespace}}, list{cgroup}, false},
		{
			"of time, with another container's processes", false,
			map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "/proc/7/ns/pid"},
			list{{Type: specs.TimeNamespace}, {Type: specs.PIDNamespace, Path: "/x"}},
			list{{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}, cgroup},
			false,
		},
		{"the pod's, which is the guest's", false, nil, list{{Type: specs.UTSNamespace, Path: "/x"}}, list{cgroup}, false},
		{
			"of another container", false,
			map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "/proc/7/ns/pid"},
			list{{Type: specs.PIDNamespace, Path: "/proc/99/ns/pid"}},
			list{{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}, cgroup},
			false,
		},
		{"of the pause container", true, nil, list{{Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.PIDNamespace}}, list{{Type: specs.PIDNamespace}, cgroup}, false},
		{
			"of a pause container with users", true, nil,
			list{{Type: specs.UserNamespace, Path: "/x"}, {Type: specs.UTSNamespace}},
			list{{Type: specs.UserNamespace}, {Type: specs.UTSNamespace}, cgroup},
			true,
		},
	} {
		spec := &specs.Spec{Hostname: "h", Linux: &specs.Linux{Namespaces: test.in}}
		o := options
		o.Sandbox, o.Joined = test.sandbox, test.joined
		got := Container(spec, o)
		if diff := cmp.Diff(test.want, got.Linux.Namespaces); diff != "" || (got.Hostname == "h") != test.keeps {
			t.Errorf("%s: hostname %q, namespaces (-want +got):\n%s", test.name, got.Hostname, diff)
		}
	}
}

// TestTmpfs: the size of a tmpfs does not come from that of the guest, but where nobody
// has set a limit of either.
func TestTmpfs(t *testing.T) {
	limit, none := int64(1<<28), int64(-1)
	for _, tt := range []struct {
		limit         *int64
		options, want []string
	}{
		{&limit, []string{"nosuid"}, []string{"nosuid", "size=100%", "nr_inodes=0"}},
		{&limit, []string{"size=1m", "nr_inodes=9"}, []string{"size=1m", "nr_inodes=9"}},
		{&limit, []string{"nr_blocks=9"}, []string{"nr_blocks=9", "nr_inodes=0"}},
		{&none, []string{"nosuid"}, []string{"nosuid"}},
		{nil, []string{"nosuid"}, []string{"nosuid"}},
	} {
		spec := &specs.Spec{
			Linux:  &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: tt.limit}}},
			Mounts: []specs.Mount{{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: tt.options}},
		}
		if diff := cmp.Diff(tt.want, Container(spec, options).Mounts[0].Options); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.options, diff)
		}
	}
}

func TestMounts(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []string
		source  Source
		want    []string
	}{
		{"plain", []string{"rbind", "rprivate"}, Source{}, []string{"rbind", "rprivate"}},
		{"propagation", []string{"rbind", "rslave", "shared"}, Source{}, []string{"rbind"}},
		{"read-only on the host alone", []string{"rbind", "ro"}, Source{}, []string{"rbind"}},
		{"read-only in the guest", []string{"rbind", "ro"}, Source{ReadOnly: true}, []string{"rbind", "ro"}},
		{"read-only all the way down", []string{"rbind", "rro"}, Source{}, []string{"rbind", "ro"}},
		{
			"attributes of what is below",
			[]string{"rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rrw"},
			Source{},
			[]string{"rbind", "nosuid", "nodev", "noexec", "noatime", "rrw"},
		},
		{"mapped", []string{"rbind", "ridmap", "idmap"}, Source{}, []string{"rbind"}},
	} {
		spec := &specs.Spec{Linux: &specs.Linux{}, Mounts: []specs.Mount{{Destination: "/d", Type: "bind", Source: "/s", Options: test.options}}}
		o := options
		test.source.Path = "/g"
		o.Sources = map[int]Source{0: test.source}
		got := Container(spec, o).Mounts[0]
		if diff := cmp.Diff(specs.Mount{Destination: "/d", Type: "bind", Source: "/g", Options: test.want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestMountsOfTheKernel: the guest's own in place of the host's, which only the
// guest can make read-only.
func TestMountsOfTheKernel(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []string
		kernel  bundle.Kernel
		want    specs.Mount
	}{
		{
			"in its place",
			[]string{"rbind", "rslave", "ro"},
			bundle.Kernel{Path: "/proc"},
			specs.Mount{Destination: "/d", Type: "bind", Source: "/proc", Options: []string{"rbind", "ro"}},
		},
		{
			"on demand",
			[]string{"rbind", "rprivate", "ro"},
			bundle.Kernel{Type: "debugfs"},
			specs.Mount{Destination: "/d", Type: "debugfs", Source: "debugfs", Options: []string{"rprivate", "ro"}},
		},
		{
			"huge pages",
			[]string{"rbind"},
			bundle.Kernel{HugePages: 1 << 30},
			specs.Mount{Destination: "/d", Type: "hugetlbfs", Source: "nodev", Options: []string{"pagesize=1073741824"}},
		},
	} {
		spec := &specs.Spec{Linux: &specs.Linux{}, Mounts: []specs.Mount{{Destination: "/d", Type: "bind", Source: "/s", Options: test.options}}}
		o := options
		o.Sources = map[int]Source{0: {Kernel: test.kernel}}
		if diff := cmp.Diff(test.want, Container(spec, o).Mounts[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestSysctlsOfAnotherContainer(t *testing.T) {
	got := Container(full(), options).Linux.Sysctl
	if diff := cmp.Diff(full().Linux.Sysctl, got); diff != "" {
		t.Errorf("only the pause container's are the guest's (-want +got):\n%s", diff)
	}
}

func TestProcess(t *testing.T) {
	p := &specs.Process{Args: []string{"a"}, ApparmorProfile: "p", SelinuxLabel: "l"}
	if diff := cmp.Diff(&specs.Process{Args: []string{"a"}, Terminal: true}, Process(p, true)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p.ApparmorProfile != "p" || p.Terminal {
		t.Errorf("the process was changed: %+v", p)
	}
}

func TestResourcesOfNothing(t *testing.T) {
	if got := Resources(nil); got != nil {
		t.Errorf("got %+v", got)
	}
}

func TestBind(t *testing.T) {
	for _, tt := range []struct {
		source  string
		options []string
		want    share.Bind
	}{
		{"/a", nil, share.Bind{Source: "/a", Deep: true, Follow: true}},
		{"a/b", []string{"rbind", "rprivate", "ro"}, share.Bind{Source: "/bundle/a/b", Access: share.WriteBelow, Deep: true}},
		{"/a", []string{"bind"}, share.Bind{Source: "/a", Follow: true}},
		{"/a", []string{"bind", "rslave", "rro"}, share.Bind{Source: "/a", Access: share.WriteNothing, Follow: true}},
		{"/a", []string{"private", "rshared", "bind", "rbind"}, share.Bind{Source: "/a", Deep: true, Follow: true}},
		{"/a", []string{"ro", "rw"}, share.Bind{Source: "/a", Deep: true, Follow: true}},
	} {
		if got := Bind(specs.Mount{Source: tt.source, Options: tt.options}, "/bundle"); got != tt.want {
			t.Errorf("%s %v: %+v, want %+v", tt.source, tt.options, got, tt.want)
		}
	}
	mapped := specs.Mount{
		Source: "/a", Options: []string{"ridmap"},
		UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100, Size: 2}, {ContainerID: 5, HostID: 7, Size: 1}},
		GIDMappings: []specs.LinuxIDMapping{{HostID: 9, Size: 3}},
	}
	want := share.IDMap{UIDs: "0:100:2,5:7:1", GIDs: "0:9:3", Deep: true}
	if got := Bind(mapped, "").IDs; got != want {
		t.Errorf("mappings: %+v, want %+v", got, want)
	}
}

// TestHooks: those for the container's namespaces go to the guest, which finds the
// programs of the host elsewhere.
func TestHooks(t *testing.T) {
	spec := full()
	spec.Hooks = &specs.Hooks{
		Prestart: []specs.Hook{{Path: "/host/a"}}, CreateRuntime: []specs.Hook{{Path: "/host/b"}}, Poststart: []specs.Hook{{Path: "/host/c"}},
		CreateContainer: []specs.Hook{{Path: "/host/tool", Args: []string{"tool", "x"}}}, StartContainer: []specs.Hook{{Path: "/bin/own"}},
	}
	before := asJSON(t, spec)
	guest := Container(spec, Options{ID: "c", Programs: map[string]string{"/host/tool": "/share/1/file"}})
	want := &specs.Hooks{
		CreateContainer: []specs.Hook{{Path: "/share/1/file", Args: []string{"tool", "x"}}}, StartContainer: []specs.Hook{{Path: "/bin/own"}},
	}
	if diff := cmp.Diff(want, guest.Hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	if asJSON(t, spec) != before {
		t.Error("the host's specification was changed")
	}
}

// TestNetworkSysctls of a container that joins a pod's network are set in the guest's;
// runtimes refuse them without a namespace of it.
func TestNetworkSysctls(t *testing.T) {
	spec := &specs.Spec{Linux: &specs.Linux{
		Sysctl:     map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/proc/7/ns/net"}},
	}}
	want := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"}
	joined := Container(spec, Options{ID: "c"}).Linux
	if !slices.Contains(joined.Namespaces, want) || len(joined.Sysctl) != 1 {
		t.Errorf("namespaces %v, parameters %v", joined.Namespaces, joined.Sysctl)
	}
	own := Container(spec, Options{ID: "c", Sandbox: true}).Linux
	if slices.Contains(own.Namespaces, want) || len(own.Sysctl) != 0 {
		t.Errorf("of the sandbox container: namespaces %v, parameters %v", own.Namespaces, own.Sysctl)
	}
}
