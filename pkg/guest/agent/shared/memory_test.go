package shared

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// inMemory makes a table with a volume in memory, and a container that has some of it.
func inMemory(t *testing.T, names ...string) (tab *Table, volume string, paths []string) {
	t.Helper()
	tab = share(t)
	volume = filepath.Join(tab.memory.dir, "v")
	if err := tab.MakeMemory([]hyperstart.MemoryVolume{{Name: "v", Size: 1 << 20, Mode: 0o3770, UID: 12, GID: 34}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // with the VM, else
		if err := unix.Unmount(volume, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if len(names) > 0 {
		paths = acquire(t, tab, "c", names...)
	}
	return tab, volume, paths
}

// acquire has a container use volumes.
func acquire(t *testing.T, tab *Table, container string, names ...string) []string {
	t.Helper()
	var from []string
	for _, name := range names {
		from = append(from, filepath.Join(tab.memory.dir, name))
	}
	s := spec(t, tab.share+"/c/rootfs", from...)
	err := tab.Acquire(container, s)
	t.Cleanup(func() {
		if err := tab.Release(container); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources(t, s)
}

// TestMemory: a volume is what was asked for, and outlives the containers that have it.
func TestMemory(t *testing.T) {
	tab, volume, paths := inMemory(t, "v", "v/a/b")
	if paths[0] != volume {
		t.Errorf("all of it is %s", paths[0])
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Stat(volume, &st), unix.Statfs(volume, &fs)); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != 0o3770 || st.Uid != 12 || st.Gid != 34 || fs.Type != unix.TMPFS_MAGIC || int64(fs.Blocks)*fs.Bsize != 1<<20 {
		t.Errorf("mode %o of %d:%d, type %x, %d blocks of %d", st.Mode, st.Uid, st.Gid, fs.Type, fs.Blocks, fs.Bsize)
	}
	if err := os.WriteFile(filepath.Join(paths[1], "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(filepath.Join(volume, "a/b"), &st); err != nil || st.Mode&0o7777 != 0o3770 || st.Gid != 34 {
		t.Errorf("part: mode %o, group %d, %v", st.Mode, st.Gid, err)
	}
	if err := tab.Release("c"); err != nil {
		t.Fatal(err)
	}
	again := []hyperstart.MemoryVolume{{Name: "v", Size: 1, Mode: 0o700}} // it is there
	if err := tab.MakeMemory(again); err != nil {
		t.Fatal(err)
	}
	late := acquire(t, tab, "d", "v/a/b/file", "v")
	for _, path := range []string{late[0], filepath.Join(late[1], "a/b/file")} {
		if got, err := os.ReadFile(path); err != nil || string(got) != "kept" {
			t.Errorf("%s has %q, %v", path, got, err)
		}
	}
}

// TestMemoryLink: a part is below the volume, whatever links containers put there. Those
// that stay in it are followed.
func TestMemoryLink(t *testing.T) {
	tab, volume, _ := inMemory(t)
	outside := t.TempDir()
	for link, to := range map[string]string{
		"link": outside, "up": "../../..", "around": "/proc/self/root", "loop": "loop", "nothing": "releases/none",
		"current": "releases/5", "releases/last": "../releases/5",
	} {
		link = filepath.Join(volume, link)
		if err := errors.Join(os.MkdirAll(filepath.Join(volume, "releases/5"), 0o700), os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(to, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"current", "releases/last", "current/new/newer", "releases/last/new"} {
		path := acquire(t, tab, "container"+filepath.Base(part), "v/"+part)[0]
		var is, want unix.Stat_t
		if err := errors.Join(unix.Stat(path, &is), unix.Stat(filepath.Join(volume, part), &want)); err != nil || is.Ino != want.Ino || is.Dev != want.Dev {
			t.Errorf("%s: %v", part, err)
		}
	}
	if _, err := os.Stat(filepath.Join(volume, "releases/5/new/newer")); err != nil {
		t.Error(err)
	}
	for _, source := range []string{"v/link", "v/link/made", "v/up", "v/up/made", "v/around", "v/loop", "v/nothing", "v/nothing/made", "v/../x", "other", "other/part"} {
		path := tab.memory.dir + "/" + source
		if err := tab.Acquire("c", spec(t, tab.share+"/c/rootfs", path)); err == nil {
			t.Errorf("%s can be used", source)
		}
		if err := tab.Release("c"); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("made through the link: %v, %v", entries, err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if err := tab.MakeMemory([]hyperstart.MemoryVolume{{Name: name, Size: 1 << 20}}); err == nil {
			t.Errorf("a volume can be called %q", name)
		}
	}
}
