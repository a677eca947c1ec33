package beneath

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenWhileOthersRename: a path with ".." in a link is found all the same, and no
// link leads out.
func TestOpenWhileOthersRename(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "run/secrets"), 0o755), os.MkdirAll(filepath.Join(root, "var"), 0o755),
		os.Symlink("../run", filepath.Join(root, "var/run")), os.Symlink("../../../../../etc/passwd", filepath.Join(root, "out")),
		os.Mkdir(filepath.Join(elsewhere, "a"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for a, b := filepath.Join(elsewhere, "a"), filepath.Join(elsewhere, "b"); ; a, b = b, a {
			select {
			case <-stop:
				return
			default:
				_ = os.Rename(a, b)
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(dir) }()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for range 2000 {
		fd, err := Open(dir, "/var/run/secrets", &how)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
	}
	if fd, err := Open(dir, "out", &how); err == nil {
		_ = unix.Close(fd)
		t.Error("a link leads out")
	}
}
