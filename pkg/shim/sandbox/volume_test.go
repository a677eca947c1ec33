package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// shownTo shows a directory to a new container and returns where it is.
func shownTo(t *testing.T, f *fixture, id string, b bind) (c *Container, path string, guard bool) {
	t.Helper()
	c = f.create(id, "wait")
	name, guard, err := c.share.bind(b)
	if err != nil {
		t.Fatal(err)
	}
	return c, filepath.Join(f.Sandbox.dir.Shared(), name), guard
}

// TestVolumeOfTwoContainers is one mount, as long as one of them has it.
func TestVolumeOfTwoContainers(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	f.run(podID, "wait")
	b := bind{source: t.TempDir(), deep: true}
	first, path, _ := shownTo(t, f, "first", b)
	second, again, _ := shownTo(t, f, "second", b)
	if path != again {
		t.Errorf("shown twice: %s and %s", path, again)
	}
	for i, c := range []*Container{first, second} {
		if err := os.WriteFile(filepath.Join(path, "file"), nil, 0o600); err != nil {
			t.Errorf("with %d containers: %v", 2-i, err)
		}
		if _, err := c.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without containers: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.source, "file")); err != nil {
		t.Errorf("on the host: %v", err)
	}
	if _, next, _ := shownTo(t, f, "third", b); next == path {
		t.Error("the guest may remember what had this name")
	}
}

// TestVolumeThatDiffers is shown again; but one that another container may write
// is protected by the guest.
func TestVolumeThatDiffers(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	source := t.TempDir()
	_, reads, guard := shownTo(t, f, "reads", bind{source: source, deep: true, access: writeBelow})
	if guard {
		t.Error("what nobody may write is left to the guest")
	}
	_, writes, _ := shownTo(t, f, "writes", bind{source: source, deep: true})
	if reads == writes {
		t.Fatal("a read-only mount is written to")
	}
	if err := os.WriteFile(filepath.Join(writes, "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
	_, other, _ := shownTo(t, f, "other", bind{source: t.TempDir(), deep: true})
	_, follows, _ := shownTo(t, f, "follows", bind{source: source, deep: true, follow: true})
	_, nothing, guarded := shownTo(t, f, "nothing", bind{source: source, deep: true, access: writeNothing})
	for _, path := range []string{other, follows, nothing} {
		if path == writes || path == reads || guarded {
			t.Errorf("%s is one of %s, %s; guarded %v", path, writes, reads, guarded)
		}
	}
	source = t.TempDir()
	_, writes, _ = shownTo(t, f, "writes2", bind{source: source, deep: true})
	if _, reads, guard = shownTo(t, f, "reads2", bind{source: source, deep: true, access: writeBelow}); reads != writes || !guard {
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
	if _, path, _ := shownTo(t, f, "below", bind{source: source, deep: true}); path == writes {
		t.Error("what was mounted since is not shown")
	}
	if err := f.Stop(t.Context()); err != nil { // a mount point that is in use cannot be removed
		t.Error(err)
	}
}

// TestVolumeAtOnce has many containers that come and go.
func TestVolumeAtOnce(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	c := f.create("c", "wait")
	b := bind{source: t.TempDir(), deep: true}
	const users, rounds = 8, 20
	var wg sync.WaitGroup
	for range users {
		wg.Go(func() {
			for range rounds {
				vol, _, err := c.share.all.show(b)
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(c.share.mounts.host(volumesDir), vol.name, "file"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := c.share.all.giveBack(vol); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(c.share.mounts.host(volumesDir)); err != nil || len(left) != 0 {
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
	l, err := lookOf(bind{source: "/", deep: true}, source, source)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(l.below, `"proc"`) {
		t.Errorf("/proc is not among the mounts %q", l.below)
	}
}

// TestVolumeWithMappedIDs is another one than the same directory without.
func TestVolumeWithMappedIDs(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	f.run(podID, "wait")
	plain, mapped := t.TempDir(), t.TempDir()
	tree, err := cloneMounts(unix.AT_FDCWD, plain, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := (idMap{uids: "0:100000:65536", gids: "0:100000:65536"}).apply(tree); err != nil {
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
			_, path, _ := shownTo(t, f, fmt.Sprintf("%s-%v", filepath.Base(source), follow), bind{source: source, follow: follow})
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Uid != want {
				t.Errorf("%s, follow %v: owner %d, want %d; error %v", source, follow, st.Uid, want, err)
			}
		}
	}
}
