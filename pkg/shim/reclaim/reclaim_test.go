package reclaim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc/hostproctest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// TestSandbox releases processes, mounts and directories, and no user data.
func TestSandbox(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	root := t.TempDir()
	volume := filepath.Join(root, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := store.DirOf(filepath.Join(root, "run"), "ns", "pod")
	p, reaped := hostproctest.Start(t)
	if err := d.Create(store.State{Processes: []hostproc.Process{p}}); err != nil {
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
		if err := Sandbox(t.Context(), d); err != nil {
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

// TestJournalIsNotKept: that a history has no place does not fail the release.
func TestJournalIsNotKept(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, ".ended"), nil, 0o600); err != nil { // where a directory is made
		t.Fatal(err)
	}
	d := store.DirOf(root, "ns", "pod")
	if err := d.Create(store.State{Namespace: "ns", ID: "pod"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), store.JournalFile), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Sandbox(t.Context(), d); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestRemoveRefusesTheHost: a damaged record must not name everything.
func TestRemoveRefusesTheHost(t *testing.T) {
	for _, path := range []string{"", "/", ".", "relative", "//", "/x/.."} {
		if err := Sandbox(t.Context(), store.Open(path)); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestRemoveWithoutReadableRecord: mounts and files are found nevertheless.
func TestRemoveWithoutReadableRecord(t *testing.T) {
	d := store.DirOf(t.TempDir(), "ns", "pod")
	if err := d.Create(store.State{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Sandbox(t.Context(), d); err == nil {
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
			d := store.DirOf(root, "ns", id)
			for range 50 {
				if err := errors.Join(d.Create(store.State{}), Sandbox(t.Context(), d)); err != nil {
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
		d := store.DirOf(t.TempDir(), "ns", "id")
		if err := d.Create(store.State{Namespace: "ns", ID: "id"}); err != nil {
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
			go func() { errs <- Sandbox(context.Background(), d) }()
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
