package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestVolumeOfTwoContainers is one mount, as long as one of them has it.
func TestVolumeOfTwoContainers(t *testing.T) {
	f := newFixture(t)
	b := Bind{Source: t.TempDir(), Deep: true}
	first, path, _ := f.bind("first", b)
	second, again, _ := f.bind("second", b)
	if path != again {
		t.Errorf("exposed twice: %s and %s", path, again)
	}
	for i, v := range []*View{first, second} {
		if err := os.WriteFile(filepath.Join(path, "file"), nil, 0o600); err != nil {
			t.Errorf("with %d containers: %v", 2-i, err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without containers: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.Source, "file")); err != nil {
		t.Errorf("on the host: %v", err)
	}
	if _, next, _ := f.bind("third", b); next == path {
		t.Error("the guest may remember what had this name")
	}
}

// TestVolumeThatDiffers is exposed again.
func TestVolumeThatDiffers(t *testing.T) {
	f := newFixture(t)
	source := t.TempDir()
	tmpfs(t, source)
	if err := unix.Mount("", source, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for name, b := range map[string]Bind{
		"plain":            {Source: source, Deep: true},
		"other":            {Source: t.TempDir(), Deep: true},
		"follows":          {Source: source, Deep: true, Follow: true},
		"follows and read": {Source: source, Deep: true, Follow: true, Access: WriteBelow},
	} {
		_, path, guard := f.bind(name, b)
		if seen[path] != "" || guard {
			t.Errorf("%s is %s; guarded %v", name, seen[path], guard)
		}
		seen[path] = name
	}
	tmpfs(t, filepath.Join(source, "below"))
	for name, access := range map[string]Access{"all": WriteAll, "below": WriteBelow, "nothing": WriteNothing} {
		_, path, guard := f.bind("with a mount, "+name, Bind{Source: source, Deep: true, Access: access})
		if seen[path] != "" || guard {
			t.Errorf("%s with a mount is %s; guarded %v", name, seen[path], guard)
		}
		seen[path] = name
		wantReadOnly(t, path, access != WriteAll)
		wantReadOnly(t, filepath.Join(path, "below"), access == WriteNothing)
	}
	if _, path, _ := f.bind("shallow", Bind{Source: source}); seen[path] != "plain" {
		t.Errorf("what nothing is mounted on is %s", seen[path])
	}
}

// TestVolumeReadAndWritten is one mount, which can be written as long as somebody
// may write.
func TestVolumeReadAndWritten(t *testing.T) {
	inBothNamespaces(t, func(t *testing.T, f *fixture) {
		source := t.TempDir()
		_, reads, guard := f.bind("reads", Bind{Source: source, Deep: true, Access: WriteBelow})
		wantReadOnly(t, reads, true)
		nothing, path, guardAgain := f.bind("nothing", Bind{Source: source, Deep: true, Access: WriteNothing})
		if path != reads || !guard || !guardAgain {
			t.Errorf("%s and %s, guarded %v, %v", reads, path, guard, guardAgain)
		}
		for _, id := range []string{"w", "w again"} {
			first, writes, guard := f.bind(id, Bind{Source: source, Deep: true})
			if writes != reads || guard {
				t.Errorf("%s and %s, guarded %v", reads, writes, guard)
			}
			second, _, _ := f.bind(id+" 2", Bind{Source: source, Deep: true})
			wantReadOnly(t, reads, false)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			wantReadOnly(t, reads, false)
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			wantReadOnly(t, reads, true)
			if err := nothing.Close(); err != nil { // is no writer
				t.Fatal(err)
			}
			wantReadOnly(t, reads, true)
		}
	})
}

// TestVolumeReadOnlyOnTheHost is never writable.
func TestVolumeReadOnlyOnTheHost(t *testing.T) {
	inBothNamespaces(t, func(t *testing.T, f *fixture) {
		source := t.TempDir()
		bindMount(t, source, source)
		if err := unix.MountSetattr(unix.AT_FDCWD, source, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			t.Fatal(err)
		}
		for id, access := range map[string]Access{"reads": WriteBelow, "writes": WriteAll, "reads again": WriteBelow, "writes again": WriteAll} {
			_, path, _ := f.bind(id, Bind{Source: source, Access: access})
			wantReadOnly(t, path, true)
		}
	})
}

// TestVolumeOfAFile is a mount in a directory that is a mount as well: only that
// can be a file system of its own for the guest.
func TestVolumeOfAFile(t *testing.T) {
	inBothNamespaces(t, func(t *testing.T, f *fixture) {
		source := filepath.Join(t.TempDir(), "name")
		write(t, source, "text")
		_, path, _ := f.bind("c", Bind{Source: source})
		if b, err := os.ReadFile(path); err != nil || string(b) != "text" {
			t.Errorf("%q, %v", b, err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
		wantReadOnly(t, filepath.Dir(path), true)
		if f.root == f.opts.Shared {
			return
		}
		ids := make(map[uint64]bool)
		for _, p := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
			var st unix.Statx_t
			if err := unix.Statx(unix.AT_FDCWD, p, 0, unix.STATX_MNT_ID, &st); err != nil {
				t.Fatal(err)
			}
			ids[st.Mnt_id] = true
		}
		if len(ids) != 3 {
			t.Errorf("%d mounts, want 3", len(ids))
		}
	})
}

// TestVolumeAtOnce has many containers that come and go.
func TestVolumeAtOnce(t *testing.T) {
	f := newFixture(t)
	b := Bind{Source: t.TempDir(), Deep: true}
	const users, rounds = 8, 20
	var wg sync.WaitGroup
	for range users {
		wg.Go(func() {
			for range rounds {
				u, _, err := f.volumes.acquire(b)
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(f.guest.host(u.path()), "file"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := f.volumes.release(u); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(f.guest.host(volumesDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestVolumeOfTheRoot knows the host's mounts below /, as below other directories.
func TestVolumeOfTheRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	src, err := openSource(Bind{Source: "/", Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	if !strings.Contains(src.key.below, `"proc"`) {
		t.Errorf("/proc is not among the mounts %q", src.key.below)
	}
}

// TestVolumeWithMappedIDs is another one than the same directory without.
func TestVolumeWithMappedIDs(t *testing.T) {
	f := newFixture(t)
	plain, mapped := t.TempDir(), t.TempDir()
	tree, err := cloneMounts(unix.AT_FDCWD, plain, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := (IDMap{UIDs: "0:100000:65536", GIDs: "0:100000:65536"}).apply(tree); err != nil {
		t.Skip(err) // not every file system can
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, mapped, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mapped, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, follow := range []bool{false, true} {
		for source, want := range map[string]uint32{plain: 0, mapped: 100000} {
			_, path, _ := f.bind(fmt.Sprintf("%s-%v", filepath.Base(source), follow), Bind{Source: source, Follow: follow})
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Uid != want {
				t.Errorf("%s, follow %v: owner %d, want %d; error %v", source, follow, st.Uid, want, err)
			}
		}
	}
}
