package install

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLock: of two at once the second one changes nothing, and says which process the
// first one is.
func TestLock(t *testing.T) {
	for _, run := range []bool{true, false} {
		t.Run(fmt.Sprintf("with run %v", run), func(t *testing.T) { testLock(t, run) })
	}
}

func testLock(t *testing.T, run bool) {
	h := hostWith(t, "version = 2\n")
	if run {
		if err := os.Mkdir(h.at("/run"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install(t, h, bundleOf(t, "1.0"))
	before := tree(t, h)
	for path := range before {
		if strings.HasPrefix(path, "/run/") {
			t.Errorf("%s is left", path)
		}
	}
	unlock, err := lock(h)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("process %d is changing this installation", os.Getpid())
	next := bundleOf(t, "1.1")
	for name, do := range map[string]func() error{
		"install": func() error { return Install(h, next, false, io.Discard) }, "uninstall": func() error { return Uninstall(h, false, io.Discard, nil) },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%s: %v", name, err)
		}
		after := tree(t, h)
		delete(after, lockFile)
		if len(after) != len(before) {
			t.Errorf("%s has changed files", name)
		}
	}
	if err := Install(h, next, true, io.Discard); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	unlock()
	install(t, h, next)
}

// TestLockOfOthers: what any user can open and lock keeps nobody from installing.
func TestLockOfOthers(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	if err := os.Mkdir(h.at("/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/run"} {
		f, err := os.Open(filepath.Join(h.Root, path))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
	install(t, h, bundleOf(t, "1.0"))
	unlock, err := lock(h)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if info, err := os.Stat(h.at(lockFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others can open it", info, err)
	}
}

// TestLocks: of many at once one has the lock at a time, though each removes its file.
func TestLocks(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	if err := os.Mkdir(h.at("/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	var inside, got atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				unlock, err := lock(h)
				if err != nil {
					continue
				}
				if inside.Add(1) != 1 {
					t.Error("two have the lock")
				}
				got.Add(1)
				inside.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if got.Load() == 0 {
		t.Error("nobody got it")
	}
	if _, err := os.Lstat(h.at(lockFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

// accessList is a POSIX access control list as the kernel has it: of the owner, of user 12,
// of the group, the mask, of others.
func accessList() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 1<<32 - 1}, {2, 4, 12}, {4, 0, 1<<32 - 1}, {16, 4, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, e.tag), e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// TestAttributes: a configuration that is edited is the same file to its owner, with the
// runtime in it and without it.
func TestAttributes(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	path := h.at(h.Containerd)
	long := bytes.Repeat([]byte("x"), 1000)
	attributes := map[string][]byte{"trusted.long": long, "trusted.empty": {}, "system.posix_acl_access": accessList()}
	err := errors.Join(os.Chown(path, 12, 34), os.Chmod(path, 0o640))
	for name, value := range attributes {
		err = errors.Join(err, unix.Setxattr(path, name, value, 0))
	}
	if err != nil {
		t.Skip("not with these rights, or on this file system:", err)
	}
	var before unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func(){func() { install(t, h, bundleOf(t, "1.0")) }, func() { uninstall(t, h) }} {
		step()
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Uid != 12 || st.Gid != 34 || st.Mode != before.Mode {
			t.Errorf("%v, owner %d:%d, mode %o, before %o", err, st.Uid, st.Gid, st.Mode, before.Mode)
		}
		for name, want := range attributes {
			if got, err := attribute(path, name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
}

// TestUnchanged: what is as it is to be is not written again, so that it is known whether
// containerd has read it.
func TestUnchanged(t *testing.T) {
	for _, text := range []string{"version = 2\n", "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n"} {
		h := hostWith(t, text)
		install(t, h, bundleOf(t, "1.0"))
		before, err := h.load()
		if err != nil {
			t.Fatal(err)
		}
		install(t, h, bundleOf(t, "1.1"))
		if after, err := h.load(); err != nil || before.Told.IsZero() || !after.Told.Equal(before.Told) {
			t.Errorf("%q: written at %v and at %v, %v", text, before.Told, after.Told, err)
		}
	}
}

// TestHasRead: containerd's start decides, and only that of the host's containerd.
func TestHasRead(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	install(t, h, bundleOf(t, "1.0"))
	r, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	at := r.Told
	process := func(pid int, comm, mounts string, started time.Time) {
		var boot unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
			t.Fatal(err)
		}
		dir := h.at(fmt.Sprint("/proc/", pid))
		since := (time.Duration(boot.Nano()) - time.Since(started)) / (time.Second / ticks)
		write(t, dir+"/comm", comm+"\n")
		write(t, dir+"/stat", fmt.Sprintf("%d (a ) b) S%s %d 0 0", pid, strings.Repeat(" 0", 18), since))
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "ns"), 0o755), os.Symlink(mounts, filepath.Join(dir, "ns/mnt"))); err != nil {
			t.Fatal(err)
		}
	}
	process(1, "systemd", "mnt:[1]", at.Add(-time.Hour))
	process(2, "containerd", "mnt:[2]", at.Add(time.Minute))
	process(3, "dockerd", "mnt:[1]", at.Add(time.Minute))
	if read, err := HasRead(h); err == nil || read {
		t.Errorf("without one: %v, %v", read, err)
	}
	process(4, "containerd", "mnt:[1]", at.Add(-time.Second))
	if read, err := HasRead(h); err != nil || read {
		t.Errorf("started before: %v, %v", read, err)
	}
	process(5, "containerd", "mnt:[1]", at.Add(time.Second))
	if read, err := HasRead(h); err != nil || !read {
		t.Errorf("started after: %v, %v", read, err)
	}
	// What others write there is no news of the runtime, also not for one who installs again.
	later := at.Add(time.Hour)
	write(t, h.at(h.Containerd), "# theirs\n"+tree(t, h)[h.Containerd])
	if err := os.Chtimes(h.at(h.Containerd), later, later); err != nil {
		t.Fatal(err)
	}
	install(t, h, bundleOf(t, "1.1"))
	if read, err := HasRead(h); err != nil || !read {
		t.Errorf("changed by others: %v, %v", read, err)
	}
}

// TestTold: a runtime that somebody has taken away is written again, later than the first
// time; after an interruption in the middle nobody knows when.
func TestTold(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	install(t, h, bundleOf(t, "1.0"))
	at := time.Now()
	write(t, h.at(h.Containerd), "version = 2\n")
	install(t, h, bundleOf(t, "1.1"))
	r, err := h.load()
	if err != nil || !r.Told.After(at) {
		t.Errorf("written again at %v, first before %v, %v", r.Told, at, err)
	}
	write(t, h.at(h.Containerd), "version = 2\n")
	broken := h
	broken.interrupt = func() error {
		if strings.Contains(tree(t, h)[h.Containerd], "runtimes.ccv2") {
			return unix.EINTR
		}
		return nil
	}
	if err := Install(broken, bundleOf(t, "1.1"), false, io.Discard); !errors.Is(err, unix.EINTR) {
		t.Fatal(err)
	}
	if r, err = h.load(); err != nil || !r.Told.IsZero() {
		t.Errorf("interrupted: told at %v, %v", r.Told, err)
	}
	at = time.Now()
	install(t, h, bundleOf(t, "1.1"))
	if r, err = h.load(); err != nil || r.Told.Before(at) {
		t.Errorf("after an interruption: told at %v, %v", r.Told, err)
	}
}

// TestStartOf: of this process it is before now, and after the one that started it.
func TestStartOf(t *testing.T) {
	self, err := startOf("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	parent, err := startOf(fmt.Sprint("/proc/", os.Getppid()))
	if err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); self.After(now) || now.Sub(self) > time.Hour || parent.After(self.Add(time.Second/ticks)) {
		t.Errorf("parent %v, self %v, now %v", parent, self, now)
	}
}

// TestPrune: the tree of an earlier version goes when its last process has ended, without
// another upgrade.
func TestPrune(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	install(t, h, bundleOf(t, "1.0"))
	write(t, h.at("/proc/77/comm"), "qemu\n")
	if err := os.Symlink("/opt/ccv2/1.0/libexec/qemu", h.at("/proc/77/exe")); err != nil {
		t.Fatal(err)
	}
	install(t, h, bundleOf(t, "1.1"))
	has := func() bool { return tree(t, h)["/opt/ccv2/1.0"] != "" }
	if err := Prune(h, io.Discard); err != nil || !has() {
		t.Errorf("%v, the tree of a pod is there: %v", err, has())
	}
	if err := os.RemoveAll(h.at("/proc/77")); err != nil {
		t.Fatal(err)
	}
	if err := Prune(h, io.Discard); err != nil || has() {
		t.Errorf("%v, the tree of no pod is there: %v", err, has())
	}
	if r, err := h.load(); err != nil || len(r.Trees) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
