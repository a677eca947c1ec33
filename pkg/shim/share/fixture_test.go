package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is the share of a sandbox.
type fixture struct {
	t *testing.T
	*Shares
	root string // of what the guest gets
}

// inBothNamespaces runs a test with a server of the share that lives in the
// host's mount namespace, and with one that has its own, also below another root.
func inBothNamespaces(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Run("host", func(t *testing.T) { test(t, newFixture(t)) })
	for name, root := range map[string]string{"server": "/", "server in a chroot": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.serve(root)
			test(t, f)
		})
	}
}

// serve makes a server with a mount namespace whose root is the share: a thread,
// which has the host's files at root.
func (f *fixture) serve(root string) {
	f.t.Helper()
	tid, end, ended := make(chan int, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- osthread.Run(func() error {
			if err := confine(root, f.opts.Shared); err != nil {
				return err
			}
			tid <- unix.Gettid()
			<-end
			return nil
		})
	}()
	f.t.Cleanup(func() {
		close(end)
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	select {
	case pid := <-tid:
		if err := f.Enter(pid); err != nil {
			f.t.Fatal(err)
		}
		f.root = fmt.Sprintf("/proc/%d/root", pid)
	case err := <-ended:
		ended <- nil
		f.t.Fatal(err)
	}
}

// confine gives the calling thread mounts of its own, as virtiofsd does, perhaps
// in a chroot.
func confine(root, dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	if root != "/" {
		if err := unix.Mount("/", root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
		if err := unix.Chroot(root); err != nil {
			return err
		}
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// newFixture makes a share that is served in the host's namespace. When the test
// ends nothing of it must be mounted or left, once its views are closed.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir := t.TempDir()
	opts := Options{Files: filepath.Join(dir, "files"), Shared: filepath.Join(dir, "shared"), Stage: filepath.Join(dir, "stage")}
	for _, path := range []string{opts.Files, opts.Shared, opts.Stage} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{t: t, Shares: New(opts), root: opts.Shared}
	t.Cleanup(f.end)
	if err := f.Prepare(); err != nil {
		t.Fatal(err)
	}
	return f
}

// end looks for what the views have left.
func (f *fixture) end() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Error(err)
	}
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(f.opts.Stage))
	if err != nil || len(all) != 0 {
		f.t.Errorf("still mounted: %v, %v", all, err)
	}
	for _, dir := range []string{f.opts.Shared, f.opts.Files} {
		if all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir)); err != nil || len(all) != 1 {
			f.t.Errorf("mounts: %v, %v", all, err)
		}
		if err := mounts.Unmount(dir); err != nil {
			f.t.Error(err)
		}
	}
	for _, dir := range []string{f.opts.Files, f.opts.Stage, filepath.Join(f.opts.Files, volumesDir), filepath.Join(f.opts.Files, liveDir)} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.Error(err)
		}
		for _, e := range entries {
			if e.Name() != volumesDir && e.Name() != liveDir {
				f.t.Errorf("left: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
}

// view makes the view of a container, which is closed when the test ends.
func (f *fixture) view(id string) *View {
	f.t.Helper()
	v, err := f.Container(id)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := v.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return v
}

// guestPath is where a path of the share is in what the guest gets.
func (f *fixture) guestPath(path string) string { return filepath.Join(f.root, path) }

// bind exposes a directory to a new container and returns where it is.
func (f *fixture) bind(id string, b Bind) (v *View, path string, guard bool) {
	f.t.Helper()
	v = f.view(id)
	name, guard, err := v.Bind(b)
	if err != nil {
		f.t.Fatal(err)
	}
	return v, f.guestPath(name), guard
}

// tmpfs mounts a file system at dir until the test ends.
func tmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// bindMount mounts a directory or a file at another path until the test ends.
func bindMount(t *testing.T, from, to string) {
	t.Helper()
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
}

// write makes a file and the directories above it.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantReadOnly looks whether a file can be made in a directory that the guest gets.
func wantReadOnly(t *testing.T, dir string, want bool) {
	t.Helper()
	f, err := os.CreateTemp(dir, "")
	if err == nil {
		_ = f.Close()
	}
	if got := errors.Is(err, unix.EROFS); got != want || err != nil && !got {
		t.Errorf("%s: read-only %v, want %v; error %v", dir, got, want, err)
	}
}
