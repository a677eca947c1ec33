package shared

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// share makes a share with a volume, as the host does, and a table for it.
func share(t *testing.T) *Table {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir := t.TempDir()
	tab := New(filepath.Join(dir, "share"), filepath.Join(dir, "own"), filepath.Join(dir, "memory"))
	for _, path := range []string{".volumes/0/a/b", ".volumes/1", "c/rootfs", "outside"} {
		if err := os.MkdirAll(filepath.Join(tab.share, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{".volumes/0/a/b/file": "text", ".volumes/1/file": "alone", "outside/file": "secret"} {
		if err := os.WriteFile(filepath.Join(tab.share, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		left, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil || len(left) > 0 {
			t.Errorf("still mounted: %v, %v", left, err)
		}
		for _, m := range left {
			_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
		}
	})
	return tab
}

// spec makes a specification with mounts of these sources.
func spec(t *testing.T, root string, sources ...string) map[string]json.RawMessage {
	t.Helper()
	var mounts []map[string]any
	for _, s := range sources {
		mounts = append(mounts, map[string]any{"source": s, "destination": "/d", "x-unknown": []int{1}})
	}
	raw, err := json.Marshal(map[string]any{"root": map[string]any{"path": root}, "mounts": mounts})
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// sources returns the sources of a specification's mounts.
func sources(t *testing.T, spec map[string]json.RawMessage) []string {
	t.Helper()
	var mounts []struct {
		Source  string `json:"source"`
		Unknown []int  `json:"x-unknown"`
	}
	if err := json.Unmarshal(spec["mounts"], &mounts); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range mounts {
		all = append(all, m.Source)
		if len(m.Unknown) != 1 {
			t.Error("a key has vanished")
		}
	}
	return all
}

func TestAcquire(t *testing.T) {
	tab := share(t)
	in := []string{"proc", tab.share + "/.volumes/0", tab.share + "/.volumes/0/a/b", tab.share + "/.volumes/1/file", "/run/other"}
	s := spec(t, tab.share+"/c/rootfs", in...)
	if err := tab.Acquire("c", s); err != nil {
		t.Fatal(err)
	}
	out := sources(t, s)
	for i, same := range []bool{true, true, false, false, true} {
		if (out[i] == in[i]) != same {
			t.Errorf("%s became %s", in[i], out[i])
		}
	}
	for path, want := range map[string]string{filepath.Join(out[2], "file"): "text", out[3]: "alone"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", path, b, err, want)
		}
	}
	for range 2 { // it is idempotent
		if err := tab.Release("c"); err != nil {
			t.Error(err)
		}
	}
	if len(tab.submounts)+len(tab.containers) != 0 {
		t.Errorf("left: %v, %v", tab.submounts, tab.containers)
	}
	if left, err := os.ReadDir(tab.dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := tab.Acquire("c", map[string]json.RawMessage{}); err != nil {
		t.Errorf("an empty specification: %v", err)
	}
}

// TestAcquireFollowsNoLink: a container may put links where the path of another
// one leads through.
func TestAcquireFollowsNoLink(t *testing.T) {
	tab := share(t)
	volume := filepath.Join(tab.share, ".volumes/0")
	for link, target := range map[string]string{
		"abs": tab.share + "/outside", "rel": "../../outside", "inner": "a", "file": "a/b/file", "proc": "/proc/self/root",
	} {
		if err := os.Symlink(target, filepath.Join(volume, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, below := range []string{"abs", "abs/file", "rel/file", "inner", "inner/b", "file", "proc/etc", "none"} {
		s := spec(t, "", filepath.Join(volume, below))
		err := tab.Acquire("c", s)
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", below, err)
		}
		if err := tab.Release("c"); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"/", "/.", "/..", "/../x/y", "/.volumes/0/../../outside", "/.volumes//0", "/./c/rootfs"} {
		if err := tab.Acquire("c", spec(t, "", tab.share+path)); err == nil || !strings.Contains(err.Error(), "not a path of the share") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSubmountIsKept while a container uses it. A tmpfs stands for what the
// kernel mounts by itself.
func TestSubmountIsKept(t *testing.T) {
	tab := share(t)
	volume := filepath.Join(tab.share, ".volumes/0")
	mounted := func() bool {
		t.Helper()
		got, err := mountinfo.Mounted(volume)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if err := tab.Acquire(id, spec(t, "", volume, volume)); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]bool{"a": true, "nobody": true} {
		if err := tab.Release(id); err != nil || mounted() != want {
			t.Errorf("after %s: mounted %v; error %v", id, mounted(), err)
		}
	}
	if err := tab.Release("b"); err != nil || mounted() {
		t.Errorf("after the last: mounted %v; error %v", mounted(), err)
	}
}

// TestAtOnce has containers that come and go.
func TestAtOnce(t *testing.T) {
	tab := share(t)
	var wg sync.WaitGroup
	for _, id := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			for range 50 {
				s := spec(t, tab.share+"/c/rootfs", tab.share+"/.volumes/0/a", tab.share+"/.volumes/1")
				if err := errors.Join(tab.Acquire(id, s), tab.Release(id)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(tab.submounts)+len(tab.containers) != 0 {
		t.Errorf("left: %v, %v", tab.submounts, tab.containers)
	}
}
