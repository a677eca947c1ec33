package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestGuestSideIsFixed: the guest writes into the mounts and nowhere above them.
func TestGuestSideIsFixed(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	snapshot := filepath.Join(f.dir, "snapshot")
	if err := os.Mkdir(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	for id, option := range map[string]string{"rw": "rw", "ro": "ro"} {
		if _, err := f.Create(t.Context(), CreateRequest{
			ID: id, Bundle: f.bundle(id, "wait"),
			Rootfs: []mount.Mount{{Type: "bind", Source: snapshot, Options: []string{"rbind", option}}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	top := f.Sandbox.dir.Shared()
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

// TestContainerNamesNoDirectory: an id is a name in the share, never a way out of it.
func TestContainerNamesNoDirectory(t *testing.T) {
	s := NewSandbox(Options{Namespace: "ns", ID: "pod", StateDir: t.TempDir()})
	for _, id := range []string{"", ".", "..", "/", "a/b", "../a", "a/..", volumesDir} {
		if _, err := s.newShare(id); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
