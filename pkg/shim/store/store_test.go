package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// child starts a process that lives until it is killed.
func child(t *testing.T) (p hostproc.Process, reaped <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := hostproc.Of("sleep", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return p, ended
}

func TestDirOf(t *testing.T) {
	const root = "/run/ccv2"
	longest := maxDirLen - len(root+"/k8s.io/")
	for _, tt := range []struct {
		id     string
		hashed bool
	}{
		{"pod", false},
		{strings.Repeat("a", 64), false}, // the length of containerd's own ids
		{strings.Repeat("a", longest), false},
		{strings.Repeat("a", longest+1), true},
	} {
		d := DirOf(root, "k8s.io", tt.id)
		if plain := filepath.Join(root, "k8s.io", tt.id); (d.Path() == plain) == tt.hashed {
			t.Errorf("%d characters: %s", len(tt.id), d.Path())
		}
		if n := len(filepath.Join(d.VM(), "virtiofs.sock")); n > 107 {
			t.Errorf("%d characters: a socket's path has %d", len(tt.id), n)
		}
		if again := DirOf(root, "k8s.io", tt.id); again != d || Open(d.Path()) != d {
			t.Errorf("%s and %s", d, again)
		}
	}
	long := strings.Repeat("a", 80)
	if DirOf(root, "a", long) == DirOf(root, "b", long) || DirOf(root, "a", long+"1") == DirOf(root, "a", long+"2") {
		t.Error("two sandboxes have one directory")
	}
}

func TestRecord(t *testing.T) {
	d := DirOf(t.TempDir(), "ns", "pod")
	if _, err := d.Load(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	want := State{
		Version: Version, Namespace: "ns", ID: "pod", Created: time.Unix(1, 0).UTC(), Cgroup: "/a", NetNS: "/b",
		Processes: []hostproc.Process{{Name: "qemu", PID: 7, Start: 8}}, Shim: hostproc.Process{Name: "shim", PID: 9, Start: 10},
	}
	if err := d.Create(want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Load(); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
	if err := d.Create(want); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second create: %v", err)
	}
	for dir, mode := range map[string]os.FileMode{d.Path(): 0o700, d.VM(): 0o700, d.Files(): 0o755, d.Shared(): 0o755, d.Stage(): 0o700} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	path := filepath.Join(d.Path(), stateFile)
	for text, part := range map[string]string{`{"version":99}`: "version 99, this release knows 1", `{`: "unexpected end of JSON"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Load(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRemove gives back processes, mounts and directories, and nobody's data.
func TestRemove(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	root := t.TempDir()
	volume := filepath.Join(root, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := DirOf(filepath.Join(root, "run"), "ns", "pod")
	p, reaped := child(t)
	if err := d.Create(State{Processes: []hostproc.Process{p}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a/deep"} {
		target := filepath.Join(d.Shared(), name)
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(volume, target, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("mount: %v", err)
		}
		if err := os.MkdirAll(filepath.Join(volume, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // it is idempotent
		if err := d.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-reaped
	if _, err := os.Stat(filepath.Join(root, "run", "ns")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if _, err := os.Stat(filepath.Join(volume, "data")); err != nil {
		t.Errorf("the volume was damaged: %v", err)
	}
}

// TestRemoveRefusesTheHost: a damaged record must not name everything.
func TestRemoveRefusesTheHost(t *testing.T) {
	for _, path := range []string{"", "/", ".", "relative", "//", "/x/.."} {
		if err := Open(path).Remove(t.Context()); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestRemoveWithoutReadableRecord: mounts and files are found all the same.
func TestRemoveWithoutReadableRecord(t *testing.T) {
	d := DirOf(t.TempDir(), "ns", "pod")
	if err := d.Create(State{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context()); err == nil {
		t.Error("nothing is said about the record")
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestCreateWhileNamespaceGoes: sandboxes of one namespace come and go at the
// same time; the directory of the namespace goes with the last one.
func TestCreateWhileNamespaceGoes(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	for _, id := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			d := DirOf(root, "ns", id)
			for range 50 {
				if err := errors.Join(d.Create(State{}), d.Remove(t.Context())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestRemoveTwiceAtOnce is what containerd does when it finds a dead shim: two
// delete commands at the same time. Both succeed.
func TestRemoveTwiceAtOnce(t *testing.T) {
	for range 20 {
		d := DirOf(t.TempDir(), "ns", "id")
		if err := d.Create(State{Namespace: "ns", ID: "id"}); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := os.MkdirAll(filepath.Join(d.Shared(), strconv.Itoa(i), "rootfs"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		const callers = 3
		errs := make(chan error, callers)
		for range callers {
			go func() { errs <- d.Remove(context.Background()) }()
		}
		for range callers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(d.Path()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
	}
}
