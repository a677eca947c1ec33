package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// write makes a bundle with a config.json.
func write(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLoad(t *testing.T) {
	if _, err := Load(t.TempDir()); !errors.Is(err, errdefs.ErrNotFound) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no config.json: %v", err)
	}
	for _, text := range []string{"", "{", `{"process":1}`, "[]"} {
		if _, err := Load(write(t, text)); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, runnable := range map[string]bool{"{}": false, `{"process":{}}`: false, `{"process":{"args":["a"]}}`: true} {
		b, err := Load(write(t, text))
		if err != nil || b.Spec.Linux == nil {
			t.Fatalf("%s: %+v, %v", text, b, err)
		}
		if err := b.CheckRunnable(); (err == nil) != runnable || err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: runnable: %v", text, err)
		}
	}
}

func TestRootfsDir(t *testing.T) {
	for root, want := range map[string]string{"": "/b/rootfs", "other": "/b/other", "/abs": "/abs"} {
		b := Bundle{Dir: "/b", Spec: &specs.Spec{Root: &specs.Root{Path: root}}}
		if got := b.RootfsDir(); got != want {
			t.Errorf("%q: %s, want %s", root, got, want)
		}
	}
	if got := (&Bundle{Dir: "/b", Spec: &specs.Spec{}}).RootfsDir(); got != "/b/rootfs" {
		t.Errorf("without a root: %s", got)
	}
}

// of is a bundle of a specification that needs no file.
func of(spec specs.Spec) *Bundle {
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	return &Bundle{Dir: "/b", Spec: &spec}
}

func TestSandboxID(t *testing.T) {
	for _, test := range []struct {
		annotations map[string]string
		want        string
	}{
		{nil, "c"},
		{map[string]string{"io.kubernetes.cri.sandbox-id": "pod"}, "pod"},
		{map[string]string{"io.kubernetes.cri-o.SandboxID": "other"}, "other"},
		{map[string]string{"io.kubernetes.cri.sandbox-id": ""}, "c"},
	} {
		if got, err := of(specs.Spec{Annotations: test.annotations}).SandboxID("c"); err != nil || got != test.want {
			t.Errorf("%v: %q, %v, want %q", test.annotations, got, err, test.want)
		}
	}
	bad := of(specs.Spec{Annotations: map[string]string{"io.kubernetes.cri.sandbox-id": "../../etc"}})
	if id, err := bad.SandboxID("c"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("an id that is a path: %q, %v", id, err)
	}
}

// TestOfPod: any annotation of a pod will do.
func TestOfPod(t *testing.T) {
	for key, want := range map[string]bool{
		"io.kubernetes.cri.sandbox-id": true, "io.kubernetes.cri-o.SandboxID": true, "io.kubernetes.cri.container-type": true, "nerdctl/name": false,
	} {
		if got := of(specs.Spec{Annotations: map[string]string{key: "x"}}).OfPod(); got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
}

func TestNamespacePID(t *testing.T) {
	for path, want := range map[string]int{
		"/proc/42/ns/net": 42, "/proc/1/ns/pid": 1, "": 0, "/run/netns/x": 0, "/proc/self/ns/net": 0, "/proc/42": 0, "/proc/42/root/ns/x": 0,
	} {
		if pid, ok := NamespacePID(specs.LinuxNamespace{Path: path}); pid != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v", path, pid, ok)
		}
	}
}

func TestLimits(t *testing.T) {
	quota, period, memory := int64(50000), uint64(100000), int64(7)
	own := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}, Memory: &specs.LinuxMemory{Limit: &memory}}
	pod := map[string]string{annotationCPUQuota: "150000", annotationCPUPeriod: "100000", annotationMemory: "1048576"}
	for _, tc := range []struct {
		name        string
		annotations map[string]string
		resources   *specs.LinuxResources
		want        Limits
	}{
		{"a container that is no pod's", nil, own, Limits{CPUQuota: 50000, CPUPeriod: 100000, Memory: 7}},
		{"a container without limits", nil, nil, Limits{}},
		{"a pod", pod, own, Limits{CPUQuota: 150000, CPUPeriod: 100000, Memory: 1 << 20}},
		{"a pod without limits", map[string]string{annotationMemory: "0"}, own, Limits{}},
	} {
		b := of(specs.Spec{Annotations: tc.annotations, Linux: &specs.Linux{Resources: tc.resources}})
		if diff := cmp.Diff(tc.want, b.Limits()); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestNetwork(t *testing.T) {
	other := specs.LinuxNamespace{Type: specs.PIDNamespace}
	pod := map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	for _, test := range []struct {
		name        string
		annotations map[string]string
		namespaces  []specs.LinuxNamespace
		want        Network
	}{
		{"none of a pod", pod, []specs.LinuxNamespace{other}, Network{Host: true}},
		{"none of a container", nil, []specs.LinuxNamespace{other}, Network{NotHost: true}},
		{"new", pod, []specs.LinuxNamespace{other, {Type: specs.NetworkNamespace}}, Network{Own: true}},
		{"path", pod, []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/run/netns/x"}}, Network{Path: "/run/netns/x", Own: true}},
	} {
		got := of(specs.Spec{Annotations: test.annotations, Linux: &specs.Linux{Namespaces: test.namespaces}}).Pod().Network
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestPodLimits: nobody else bounds a container that is no pod's.
func TestPodLimits(t *testing.T) {
	pause := map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	resources := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}
	if got := of(specs.Spec{Annotations: pause, Linux: &specs.Linux{Resources: resources}}).Pod().Limits; got != nil {
		t.Errorf("a pod: %+v", got)
	}
	if got := of(specs.Spec{Linux: &specs.Linux{Resources: resources}}).Pod().Limits; got != resources {
		t.Errorf("a container: %+v", got)
	}
	if got := of(specs.Spec{}).Pod().Limits; got == nil {
		t.Error("a container without limits is a pod's")
	}
}

// TestSysctls: names as sysctl(8) takes them.
func TestSysctls(t *testing.T) {
	if got := Sysctls(&specs.Spec{Linux: &specs.Linux{}}); got != nil {
		t.Errorf("of none: %v", got)
	}
	got := Sysctls(&specs.Spec{Linux: &specs.Linux{Sysctl: map[string]string{
		"net.ipv4.conf.eth0/5.forwarding": "1", "net/ipv6/conf/eth0.5/forwarding": "2", "kernel/msgmax": "3", "nonsense": "4",
	}}})
	want := map[string]string{"net.ipv4.conf.eth0/5.forwarding": "1", "net.ipv6.conf.eth0/5.forwarding": "2", "kernel.msgmax": "3", "nonsense": "4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPodSysctls(t *testing.T) {
	all := map[string]string{"net.core.somaxconn": "9", "kernel.shmmax": "8", "fs.mqueue.msg_max": "7", "kernel.domainname": "x"}
	for _, test := range []struct {
		name       string
		namespaces []specs.LinuxNamespace
		want       map[string]string
	}{
		{"a pod", nil, map[string]string{"net.core.somaxconn": "9", "kernel.shmmax": "8", "fs.mqueue.msg_max": "7", "kernel.domainname": "x"}},
		{"with a user namespace", []specs.LinuxNamespace{{Type: specs.UserNamespace}}, map[string]string{"net.core.somaxconn": "9"}},
	} {
		spec := &specs.Spec{Linux: &specs.Linux{Sysctl: all, Namespaces: test.namespaces}}
		if diff := cmp.Diff(test.want, PodSysctls(spec)); diff != "" || len(spec.Linux.Sysctl) != 4 {
			t.Errorf("%s, of %v (-want +got):\n%s", test.name, spec.Linux.Sysctl, diff)
		}
	}
}

func TestDomainname(t *testing.T) {
	spec := &specs.Spec{Domainname: "d", Linux: &specs.Linux{}}
	if diff := cmp.Diff(map[string]string{"kernel.domainname": "d"}, PodSysctls(spec)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHostname(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := of(specs.Spec{}).Pod().Hostname; got != host {
		t.Errorf("without one: %q, want the host's, %q", got, host)
	}
	if got := of(specs.Spec{Hostname: "h"}).Pod().Hostname; got != "h" {
		t.Errorf("with one: %q", got)
	}
}

// TestPodShm tells the pod's shared memory from a volume that is mounted in its place.
func TestPodShm(t *testing.T) {
	dir := t.TempDir()
	bind := func(source, destination string) specs.Mount {
		return specs.Mount{Destination: destination, Type: "bind", Source: source}
	}
	for _, name := range []string{"shm", "tmpfs", "/dev/shm"} {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(name, path, "tmpfs", 0, "size=1m"); err != nil {
			t.Skip("no mounts without rights:", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	}
	for _, tt := range []struct {
		mount specs.Mount
		want  bool
	}{
		{bind(filepath.Join(dir, "shm"), "/dev/shm"), true},
		{bind(filepath.Join(dir, "shm"), "/dev/shm/"), true},
		{bind(filepath.Join(dir, "_dev_shm"), "/dev/shm"), true},
		{bind("/dev/shm", "/dev/shm"), true},
		{bind(filepath.Join(dir, "tmpfs"), "/dev/shm"), false},
		{bind(dir, "/dev/shm"), false},
		{bind(filepath.Join(dir, "missing"), "/dev/shm"), false},
		{bind(filepath.Join(dir, "shm"), "/data"), false},
		{specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm"}, false},
	} {
		if got := IsPodShm(tt.mount); got != tt.want {
			t.Errorf("%+v: %v", tt.mount, got)
		}
	}
	size := of(specs.Spec{Mounts: []specs.Mount{bind(filepath.Join(dir, "shm"), "/dev/shm")}}).Pod().ShmSize
	other := of(specs.Spec{Mounts: []specs.Mount{bind(filepath.Join(dir, "tmpfs"), "/dev/shm")}}).Pod().ShmSize
	if size != 1<<20 || other != defaultShmSize {
		t.Errorf("sizes %d and %d", size, other)
	}
}

func TestShmSize(t *testing.T) {
	if got := of(specs.Spec{}).Pod().ShmSize; got != defaultShmSize {
		t.Errorf("without a mount: %d", got)
	}
	disk := specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/proc"}
	if got := of(specs.Spec{Mounts: []specs.Mount{disk}}).Pod().ShmSize; got != defaultShmSize {
		t.Errorf("not a tmpfs: %d", got)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadNote(dir); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("note: %v", err)
	}
	if _, err := LoadExit(dir); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("exit: %v", err)
	}
	if _, err := LoadAddress(dir); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("address: %v", err)
	}
	note, exit := Note{Dir: "/d", SandboxID: "s", Share: "c"}, Exit{Status: 3, At: time.Unix(1, 2).UTC(), PID: 4}
	address := Address{Address: "unix:///x"}
	if err := errors.Join(SaveNote(dir, note), SaveExit(dir, exit), SaveAddress(dir, address)); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadNote(dir); err != nil || got != note {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := LoadExit(dir); err != nil || got != exit {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := LoadAddress(dir); err != nil || got != address {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSaveDialAddress: another address takes the place of the first.
func TestSaveDialAddress(t *testing.T) {
	dir := write(t, "{}")
	for _, address := range []string{"unix:///a/long/one", "unix:///b"} {
		if err := SaveDialAddress(dir, address); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "address")); err != nil || string(got) != address {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := SaveDialAddress(filepath.Join(dir, "gone"), "unix:///b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bundle: %v", err)
	}
}

func TestDeleted(t *testing.T) {
	dir := write(t, "{}")
	if Deleted(dir) {
		t.Error("a new bundle is deleted")
	}
	if err := MarkDeleted(dir); err != nil {
		t.Fatal(err)
	}
	if !Deleted(dir) || !Deleted(t.TempDir()) {
		t.Error("a marked bundle, or one that is gone, is not deleted")
	}
}

func TestPodUID(t *testing.T) {
	for want, annotations := range map[string]map[string]string{
		"":  nil,
		"a": {"io.kubernetes.cri.sandbox-uid": "a"},
		"b": {"io.kubernetes.cri.sandbox-uid": "", "io.kubernetes.pod.uid": "b"},
	} {
		if got := of(specs.Spec{Annotations: annotations}).PodUID(); got != want {
			t.Errorf("%v: %q, want %q", annotations, got, want)
		}
	}
}

// TestSharesIPC: a path is the namespace of another one, and none at all is the host's.
func TestSharesIPC(t *testing.T) {
	for name, tt := range map[string]struct {
		namespaces []specs.LinuxNamespace
		want       bool
	}{
		"own":    {[]specs.LinuxNamespace{{Type: specs.IPCNamespace}}, false},
		"pod's":  {[]specs.LinuxNamespace{{Type: specs.IPCNamespace, Path: "/proc/1/ns/ipc"}}, true},
		"host's": {[]specs.LinuxNamespace{{Type: specs.PIDNamespace}}, true},
	} {
		if got := of(specs.Spec{Linux: &specs.Linux{Namespaces: tt.namespaces}}).SharesIPC(); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
