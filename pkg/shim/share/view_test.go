package share

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestGuestSideIsFixed: the guest writes into the mounts and nowhere above them.
func TestGuestSideIsFixed(t *testing.T) {
	f := newFixture(t)
	snapshot := t.TempDir()
	for id, option := range map[string]string{"rw": "rw", "ro": "ro"} {
		err := f.view(id).Rootfs([]mount.Mount{{Type: "bind", Source: snapshot, Options: []string{"rbind", option}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	top := f.opts.Shared
	for what, err := range map[string]error{
		"mkdir":    os.Mkdir(filepath.Join(top, "next"), 0o755),
		"link":     os.Symlink("/etc", filepath.Join(top, "rw", "0")),
		"rename":   os.Rename(filepath.Join(top, "rw", "rootfs"), filepath.Join(top, "rw", "moved")),
		"rename 2": os.Rename(filepath.Join(top, "rw"), filepath.Join(top, "moved")),
		"mode":     os.Chmod(filepath.Join(top, "rw"), 0o777),
		"ro":       os.WriteFile(filepath.Join(top, "ro", "rootfs", "file"), nil, 0o600),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.WriteFile(filepath.Join(top, "rw", "rootfs", "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"rw", "ro"} {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Join(top, id, "rootfs"), &st); err != nil || st.Flags&unix.ST_NODEV == 0 || st.Flags&unix.ST_NOSUID == 0 {
			t.Errorf("flags of %s: %#x, %v", id, st.Flags, err)
		}
	}
}

// TestContainerIsNotAPath: an id is a name in the share, never a way out of it.
func TestContainerIsNotAPath(t *testing.T) {
	s := New(Options{Files: t.TempDir(), Stage: t.TempDir()})
	for _, id := range []string{"", ".", "..", "/", "a/b", "../a", "a/..", volumesDir} {
		if _, err := s.Container(id); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestNamesComeOnce: a guest that still knows a container's directory never takes the next
// one's for it.
func TestNamesComeOnce(t *testing.T) {
	f := newFixture(t)
	seen := map[string]bool{}
	for _, id := range []string{"c", "c", "d", "c", "c.1"} {
		v, err := f.Container(id)
		if err != nil {
			t.Fatal(err)
		}
		path := v.RootfsPath()
		if info, err := os.Stat(f.guestPath(path)); err != nil || !info.IsDir() || seen[path] {
			t.Errorf("%s is at %s, seen %v, %v", id, path, seen[path], err)
		}
		seen[path] = true
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRootfsDir is a directory that exists.
func TestRootfsDir(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := f.view("c")
	if err := v.RootfsDir(filepath.Join(dir, "none")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	if err := v.RootfsDir(file); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a file: %v", err)
	}
	if err := v.RootfsDir(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(f.guestPath(v.RootfsPath()), "file")); err != nil || string(b) != "x" {
		t.Errorf("in the guest: %q, %v", b, err)
	}
	for range 2 { // it is idempotent
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("after the container: %v", err)
	}
}

// TestTree is a copy of what the guest has, mounts below it too, which outlives the
// view; a path that the guest has changed into a link leads nowhere.
func TestTree(t *testing.T) {
	inBothNamespaces(t, func(t *testing.T, f *fixture) {
		snapshot, volume := t.TempDir(), t.TempDir()
		for dir, name := range map[string]string{snapshot: "of-root", volume: "of-volume"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		v := f.view("c")
		if err := v.RootfsDir(snapshot); err != nil {
			t.Fatal(err)
		}
		path, _, err := v.Bind(Bind{Source: volume})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			path, file string
			readOnly   bool
		}{{v.RootfsPath(), "of-root", true}, {path, "of-volume", false}} {
			tree, err := v.Tree(test.path, test.readOnly)
			if err != nil {
				t.Fatal(err)
			}
			at := int(tree.Fd())
			if err := unix.Faccessat(at, test.file, unix.F_OK, 0); err != nil {
				t.Errorf("%s: %v", test.path, err)
			}
			if err := unix.Mkdirat(at, "new", 0o700); errors.Is(err, unix.EROFS) != test.readOnly {
				t.Errorf("%s: write: %v", test.path, err)
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := os.Symlink("/etc", filepath.Join(snapshot, "link")); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(v.RootfsPath(), "link"), filepath.Join(v.RootfsPath(), "missing"), "../.."} {
			if tree, err := v.Tree(path, false); err == nil {
				t.Errorf("%s: %v", path, tree.Close())
			}
		}
	})
}
