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

// TestVolumeThatDiffers is exposed again; but one that another container may write
// is protected by the guest.
func TestVolumeThatDiffers(t *testing.T) {
	f := newFixture(t)
	source := t.TempDir()
	_, reads, guard := f.bind("reads", Bind{Source: source, Deep: true, Access: WriteBelow})
	if guard {
		t.Error("what nobody may write is left to the guest")
	}
	_, writes, _ := f.bind("writes", Bind{Source: source, Deep: true})
	if reads == writes {
		t.Fatal("a read-only mount is written to")
	}
	if err := os.WriteFile(filepath.Join(writes, "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
	_, other, _ := f.bind("other", Bind{Source: t.TempDir(), Deep: true})
	_, follows, _ := f.bind("follows", Bind{Source: source, Deep: true, Follow: true})
	_, nothing, guarded := f.bind("nothing", Bind{Source: source, Deep: true, Access: WriteNothing})
	for _, path := range []string{other, follows, nothing} {
		if path == writes || path == reads || guarded {
			t.Errorf("%s is one of %s, %s; guarded %v", path, writes, reads, guarded)
		}
	}
	source = t.TempDir()
	_, writes, _ = f.bind("writes2", Bind{Source: source, Deep: true})
	if _, reads, guard = f.bind("reads2", Bind{Source: source, Deep: true, Access: WriteBelow}); reads != writes || !guard {
		t.Errorf("what another container may write: %s and %s, guarded %v", reads, writes, guard)
	}
	below := filepath.Join(source, "below")
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
	if _, path, _ := f.bind("below", Bind{Source: source, Deep: true}); path == writes {
		t.Error("what was mounted since is not exposed")
	}
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
				vol, _, err := f.volumes.acquire(b)
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(f.guest.host(vol.path()), "file"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := f.volumes.release(vol); err != nil {
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
	source, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(source) }()
	key, err := keyOf(Bind{Source: "/", Deep: true}, source, source)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(key.below, `"proc"`) {
		t.Errorf("/proc is not among the mounts %q", key.below)
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
