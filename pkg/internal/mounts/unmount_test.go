package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestUnmountFollowsNoLink: a mount below a volume goes with the volume, even
// when the way to it was replaced by a link to another mount.
func TestUnmountFollowsNoLink(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	root := t.TempDir()
	tmpfs := func(dir string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("mount: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	share, outside := filepath.Join(root, "share"), filepath.Join(root, "outside")
	tmpfs(filepath.Join(outside, "b"))
	tmpfs(filepath.Join(share, "v"))
	tmpfs(filepath.Join(share, "v")) // two at one place
	tmpfs(filepath.Join(share, "v", "a", "b"))
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(share))
	if err != nil {
		t.Fatal(err)
	}
	if top := topmost(mounts); len(top) != 1 || top[0].Mountpoint != filepath.Join(share, "v") {
		t.Errorf("named to the kernel: %v", top)
	}
	if err := os.Rename(filepath.Join(share, "v", "a"), filepath.Join(share, "v", "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(share, "v", "a")); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(share); err != nil {
		t.Error(err)
	}
	if mounted, err := mountinfo.Mounted(filepath.Join(outside, "b")); err != nil || !mounted {
		t.Errorf("outside: %v, %v", mounted, err)
	}
}

// TestHostIsRefused: a damaged record must not name everything.
func TestHostIsRefused(t *testing.T) {
	for _, path := range []string{"", "/", ".", "relative", "//", "/x/.."} {
		for _, err := range []error{CheckRoot(path), Unmount(path), RemoveTree(path)} {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: %v", path, err)
			}
		}
	}
}
