package blockdev

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// image makes a raw image.
func image(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const sectors = 4 * 512

// TestAttach: an image is the VM's until it is detached, by its id or its path.
func TestAttach(t *testing.T) {
	table, v := NewTable(time.Minute), new(vm)
	path := image(t, strings.Repeat("x", sectors))
	for _, readOnly := range []bool{true, false} {
		d, err := table.Attach(t.Context(), v, path, readOnly)
		if err != nil || d.Path != path || d.ReadOnly != readOnly || !slices.Equal(v.ids(), []string{d.ID}) || v.disks[0].Serial != d.ID {
			t.Fatalf("got %+v, %v, the vm has %q", d, err, v.ids())
		}
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Attach(t.Context(), v, link, true); !errdefs.IsAlreadyExists(err) {
			t.Errorf("twice: %v", err)
		}
		if got := table.Attached(); len(got) != 1 || got[0] != d {
			t.Errorf("attached: %+v", got)
		}
		if err := table.Detach(t.Context(), v, map[bool]string{true: d.ID, false: path}[readOnly]); err != nil || len(v.ids()) > 0 || len(table.Attached()) > 0 {
			t.Errorf("detach: %v, the vm has %q", err, v.ids())
		}
	}
	if err := table.Detach(t.Context(), v, path); !errdefs.IsNotFound(err) {
		t.Errorf("detach again: %v", err)
	}
}

// TestAttachRefused: what somebody uses, and what is no disk, is refused by its reason.
func TestAttachRefused(t *testing.T) {
	table, v := NewTable(time.Minute), new(vm)
	locked := image(t, strings.Repeat("x", sectors))
	f, err := os.OpenFile(locked, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 1}); err != nil { // as QEMU has it
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, want string
		class      func(error) bool
	}{
		{"relative", "want an absolute path", errdefs.IsInvalidArgument},
		{"/no/such/file", "no such file", errdefs.IsNotFound},
		{"/dev/null", "neither a block device nor a file", errdefs.IsInvalidArgument},
		{t.TempDir(), "neither a block device nor a file", errdefs.IsInvalidArgument},
		{image(t, ""), "no whole sectors", errdefs.IsInvalidArgument},
		{image(t, "short"), "no whole sectors", errdefs.IsInvalidArgument},
		{image(t, "QFI\xfb"+strings.Repeat("x", sectors-4)), "qcow2", errdefs.IsInvalidArgument},
		{locked, "it is locked", errdefs.IsFailedPrecondition},
	} {
		if _, err := table.Attach(t.Context(), v, tt.path, false); err == nil || !strings.Contains(err.Error(), tt.want) || !tt.class(err) {
			t.Errorf("%s: %v, want %q", tt.path, err, tt.want)
		}
	}
	if len(v.ids()) > 0 || len(table.Attached()) > 0 {
		t.Errorf("the vm has %q", v.ids())
	}
}

// TestAttachFails: what could not be attached is taken back, also when the VM gets it later.
func TestAttachFails(t *testing.T) {
	table, v := NewTable(time.Minute), &vm{broken: errors.New("no slot")}
	path := image(t, strings.Repeat("x", sectors))
	if _, err := table.Attach(t.Context(), v, path, false); !errors.Is(err, v.broken) || len(table.Attached()) > 0 {
		t.Errorf("got %v", err)
	}
	v.broken, v.plugging = nil, make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := table.Attach(ctx, v, path, false); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	v.plugging = nil
	if d, err := table.Attach(t.Context(), v, path, false); err != nil || !slices.Equal(v.ids(), []string{d.ID}) {
		t.Errorf("later: %+v, %v", d, err)
	}
	if v.gone = context.DeadlineExceeded; !errors.Is(table.Detach(t.Context(), v, path), v.gone) || len(table.Attached()) != 1 {
		t.Error("a disk that the guest keeps is forgotten")
	}
	v.gone = nil
	if err := table.Detach(t.Context(), v, path); err != nil {
		t.Error(err)
	}
}

// TestAttachDevice: a device that is mounted, a container's or the one of a loop is refused.
func TestAttachDevice(t *testing.T) {
	path, n := loop(t)
	table, v := NewTable(time.Minute), new(vm)
	backing, err := os.ReadFile("/sys/block/" + filepath.Base(path) + "/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Attach(t.Context(), v, strings.TrimSpace(string(backing)), true); err == nil || !strings.Contains(err.Error(), "in use on the host, as "+path) {
		t.Errorf("image of a loop: %v", err)
	}
	container := table.View(v)
	if _, err := container.Disks(t.Context(), with(n, "r")); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Attach(t.Context(), v, path, true); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "a container of the pod has it") {
		t.Errorf("a container's: %v", err)
	}
	if err := container.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := table.Attach(t.Context(), v, path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Detach(t.Context(), v, d.ID); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", path).CombinedOutput(); err != nil {
		t.Skipf("mke2fs: %v: %s", err, out)
	}
	dir := t.TempDir()
	if err := unix.Mount(path, dir, "ext4", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	for _, readOnly := range []bool{true, false} {
		if _, err := table.Attach(t.Context(), v, path, readOnly); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "mounted") {
			t.Errorf("mounted: %v", err)
		}
	}
}

// TestAttachReadOnlyDevice: what cannot be written is attached when that is asked for.
func TestAttachReadOnlyDevice(t *testing.T) {
	path, _ := loop(t, "--read-only")
	table, v := NewTable(time.Minute), new(vm)
	if _, err := table.Attach(t.Context(), v, path, false); err == nil || !strings.Contains(err.Error(), "--read-only attaches") {
		t.Errorf("got %v", err)
	}
	if _, err := table.Attach(t.Context(), v, path, true); err != nil {
		t.Error(err)
	}
}
