package manager

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc/hostproctest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// bundles is containerd's directory of bundles, with the records of the shims. The
// test's process is the shim of those that have a pid of a child of it.
type bundles struct {
	t    *testing.T
	dir  string
	root string // of the records
}

func newBundles(t *testing.T) bundles {
	t.Helper()
	return bundles{t: t, dir: t.TempDir(), root: t.TempDir()}
}

// container makes the bundle of a container with a pid in a sandbox.
func (b bundles) container(id, sandbox string, pid int, shim hostproc.Process, address string) (dir string) {
	b.t.Helper()
	dir = filepath.Join(b.dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	record := store.DirOf(b.root, "ns", sandbox)
	if _, err := record.Load(); err != nil {
		if err := record.Create(store.State{Namespace: "ns", ID: sandbox, Shim: shim}); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := bundle.SaveNote(dir, bundle.Note{Dir: record.Path(), SandboxID: sandbox, Share: id, PID: pid}); err != nil {
		b.t.Fatal(err)
	}
	if err := bundle.SaveAddress(dir, bundle.Address{Address: address}); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// joiner makes the bundle of a container that joins namespaces.
func (b bundles) joiner(annotations map[string]string, paths ...string) (dir string) {
	b.t.Helper()
	dir, err := os.MkdirTemp(b.dir, "joiner")
	if err != nil {
		b.t.Fatal(err)
	}
	spec := specs.Spec{Annotations: annotations, Linux: &specs.Linux{}}
	for _, path := range paths {
		kind := specs.LinuxNamespaceType(strings.Replace(filepath.Base(path), "net", "network", 1))
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// served is the address of a socket on which someone listens.
func served(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return "unix://" + path
}

func TestJoined(t *testing.T) {
	self, err := hostproc.Of("shim", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := hostproctest.Start(t)
	var pids []int
	for range 5 {
		child, _ := hostproctest.Start(t)
		pids = append(pids, child.PID)
	}
	b := newBundles(t)
	one, two, dead := served(t), served(t), "unix:///nowhere"
	b.container("x", "x", pids[0], self, one)
	b.container("y", "x", pids[1], self, one) // has joined x, whose bundle may be gone
	b.container("other", "other", pids[2], self, two)
	b.container("silent", "silent", pids[3], self, dead)
	b.container("lost", "lost", pids[4], stranger, two) // the pid is not its shim's child
	before := b.container("before", "other", pids[0], self, two)
	if err := bundle.SaveExit(before, bundle.Exit{PID: pids[0]}); err != nil { // its pid was used again
		t.Fatal(err)
	}
	of := func(pid int, kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, kind) }
	for name, tt := range map[string]struct {
		annotations map[string]string
		paths       []string
		want        *server
		is          func(error) bool
	}{
		"none":             {},
		"new":              {paths: []string{""}},
		"by name":          {paths: []string{"/run/netns/x"}},
		"of a process":     {paths: []string{of(os.Getpid(), "net"), of(1<<30, "pid")}},
		"network":          {paths: []string{of(pids[0], "net")}, want: &server{"x", one}},
		"pid":              {paths: []string{"/run/netns/x", of(pids[0], "pid")}, want: &server{"x", one}},
		"of one joined":    {paths: []string{of(pids[1], "ipc")}, want: &server{"x", one}},
		"one sandbox":      {paths: []string{of(pids[0], "net"), of(pids[1], "ipc")}, want: &server{"x", one}},
		"of two sandboxes": {paths: []string{of(pids[0], "net"), of(pids[2], "ipc")}, is: errdefs.IsInvalidArgument},
		"no answer":        {paths: []string{of(pids[3], "net")}, is: errdefs.IsUnavailable},
		"not its child":    {paths: []string{of(pids[4], "net")}},
		"of a pod": {
			annotations: map[string]string{"io.kubernetes.cri.sandbox-id": "p"}, paths: []string{of(pids[0], "net")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := joined(b.joiner(tt.annotations, tt.paths...))
			switch {
			case tt.is != nil && !tt.is(err), tt.is == nil && err != nil:
				t.Error(err)
			case (got == nil) != (tt.want == nil), got != nil && *got != *tt.want:
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestJoinedUnreadable: a container that may live is not taken for none.
func TestJoinedUnreadable(t *testing.T) {
	child, _ := hostproctest.Start(t)
	b := newBundles(t)
	b.container("x", "x", child.PID, child, served(t))
	record := filepath.Join(store.DirOf(b.root, "ns", "x").Path(), "state.json")
	if err := os.WriteFile(record, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := joined(b.joiner(nil, fmt.Sprintf("/proc/%d/ns/net", child.PID))); err == nil {
		t.Errorf("%+v, want an error", got)
	}
}

// TestDeleteOfAJoinedSandbox: who has joined keeps the VM, whatever the note says.
func TestDeleteOfAJoinedSandbox(t *testing.T) {
	shimProcess, _ := hostproctest.Start(t)
	b := newBundles(t)
	x := b.container("x", "x", 1, shimProcess, "unix:///nowhere")
	y := b.container("y", "x", 2, shimProcess, "unix:///nowhere")
	for _, dir := range []string{x, y} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	deleted(t, x, "x")
	if !shimProcess.Alive() {
		t.Error("the shim of a container that has joined was killed")
	}
	if err := os.RemoveAll(y); err != nil {
		t.Fatal(err)
	}
	deleted(t, x, "x")
	if shimProcess.Alive() {
		t.Error("the shim serves nobody, and lives")
	}
}
