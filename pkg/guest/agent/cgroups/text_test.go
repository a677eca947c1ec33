package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestTextIn: all that a process has mapped of its programs and libraries is text, of
// files that the host serves.
func TestTextIn(t *testing.T) {
	const mountinfo = `22 1 0:20 / / rw shared:1 - virtiofs ccv2 rw
23 22 0:21 / /tmp rw - tmpfs tmpfs rw
24 22 0:2a / /nine rw - 9p ccv2 rw
25 22 0:22 / /own rw - fuse.own own rw
bad line
`
	const maps = `00400000-00401000 r--p 00000000 00:14 7 /bin/a
00401000-00403000 r-xp 00001000 00:14 7 /bin/a
00403000-00404000 rw-p 00003000 00:14 7 /bin/a
00404000-00405000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000002000 r--s 00000000 00:14 8 /data
7f0000002000-7f0000003000 r-xp 00000000 00:15 9 /tmp/in-memory
7f0000003000-7f0000004000 r-xp 00000000 00:16 9 /own/served-by-a-container
7f0000004000-7f0000005000 r-xp 00005000 00:2a 9 /nine/a name with spaces (deleted)
bad line
`
	want := []textFile{
		{id: "mnt:[7] 0:20 7", text: true, parts: []mapping{
			{name: "401000-403000", offset: 0x1000, length: 0x2000, text: true},
			{name: "400000-401000", offset: 0, length: 0x1000},
			{name: "403000-404000", offset: 0x3000, length: 0x1000},
		}},
		{id: "mnt:[7] 0:42 9", text: true, parts: []mapping{{name: "7f0000004000-7f0000005000", offset: 0x5000, length: 0x1000, text: true}}},
	}
	host := servedBy(bytes.ReplaceAll([]byte(mountinfo), []byte("0:2a"), []byte("0:42")))
	all := served{mounts: map[uint64]bool{22: true, 24: true}, devices: map[string]bool{"0:20": true, "0:42": true}}
	if diff := cmp.Diff(all, host, cmp.AllowUnexported(served{})); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	host.namespace = "mnt:[7]"
	if diff := cmp.Diff(want, textIn([]byte(maps), host), cmp.AllowUnexported(textFile{}, mapping{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestShort tells a group that has no memory left from one that has read large files.
func TestShort(t *testing.T) {
	for _, tt := range []struct {
		name           string
		limit, current string
		cache          int
		refaults       int
		want           bool
	}{
		{"thrashes", "134217728", "134209536", 600 << 10, 1000, true},
		{"nothing comes again", "134217728", "134209536", 600 << 10, 0, false},
		{"full of files", "134217728", "134209536", 90 << 20, 1000, false},
		{"has room", "134217728", "100000000", 600 << 10, 1000, false},
		{"is small", "16777216", "16777216", 3 << 20, 1000, true},
		{"has no limit", "max", "134209536", 600 << 10, 1000, false},
	} {
		dir := filepath.Join(t.TempDir(), "inner")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"memory.max": tt.limit + "\n", "memory.current": tt.current + "\n",
			"memory.stat": fmt.Sprintf("anon 1\nactive_file %d\ninactive_file %d\nworkingset_refault_file %d\n", tt.cache/2, tt.cache/2, tt.refaults),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, outer := range []string{dir, filepath.Dir(dir)} { // which has made the group in its own
			g := &textGroup{group: Group(outer)}
			if got := g.short(); slices.Contains(got, Group(dir)) != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
			if got := g.short(); len(got) != 0 {
				t.Errorf("%s: %v are short again, without a page that was read", tt.name, got)
			}
		}
	}
}

// TestLockText: the text of a process is locked while it lives, as far as there is room.
func TestLockText(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: to open what another process has mapped")
	}
	k, err := newTextKeeper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	child := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lockedText(t, k, child.Process.Pid)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	k.remove("a container")
	defer takeTurn(k)()
	if len(k.holders) != 0 {
		t.Errorf("after the end of the process: %v", k.holders)
	}
}

// takeTurn is for who calls what the goroutines of the keeper do in their turn, and
// returns what ends it.
func takeTurn(k *textKeeper) func() {
	k.turn <- struct{}{}
	return func() { <-k.turn }
}

// lockedText locks the text of a process, with room for a part of it and for all.
func lockedText(t *testing.T, k *textKeeper, pid int) {
	t.Helper()
	defer takeTurn(k)()
	files, host := everyText(t, pid)
	page := os.Getpagesize()
	for _, room := range []int{page, 64 << 20} {
		left, err := k.lockFiles("c", pid, files, host, room)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, part := range k.holders[pid].parts {
			sum += len(part)
		}
		if sum == 0 || sum != room-left || room == page && left != 0 {
			t.Errorf("with room for %d bytes %d are locked, and %d left", room, sum, left)
		}
		if !k.locked(files[0].id) {
			t.Error("the file is not known as locked")
		}
		if room == page {
			k.drop(pid)
		}
	}
}

// everyText is the text of a process, as if the host served all files.
func everyText(t *testing.T, pid int) ([]textFile, served) {
	t.Helper()
	host := served{mounts: map[uint64]bool{}, devices: map[string]bool{}}
	mounts, err := readList(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		id, err := strconv.ParseUint(strings.Fields(line)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		host.mounts[id] = true
	}
	maps, err := readList(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if _, device, _, ok := parseMapping(line); ok {
			host.devices[device] = true
		}
	}
	return textIn(maps, host), host
}

// mapped maps a file of one page, or memory.
func mapped(t *testing.T, fd, length, prot, flags int) []byte {
	t.Helper()
	b, err := unix.Mmap(fd, 0, length, prot, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// TestManyMappings: a process with very many does not take all that the agent may have, and
// is gone through in no time.
func TestManyMappings(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: to open what a process has mapped")
	}
	k, err := newTextKeeper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	f, err := os.Create(filepath.Join(t.TempDir(), "text"))
	if err == nil {
		err = f.Truncate(1)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range maxParts + 500 {
		mapped(t, int(f.Fd()), 1, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	}
	files, host := everyText(t, os.Getpid())
	defer takeTurn(k)()
	if _, err := k.lockFiles("c", os.Getpid(), files, host, 1<<40); err != nil {
		t.Fatal(err)
	}
	if n := k.parts(); n == 0 || n > maxParts {
		t.Errorf("%d mappings", n)
	}
}

// TestRoomFor: what is locked counts, however often a container is short of memory.
func TestRoomFor(t *testing.T) {
	k := &textKeeper{holders: map[int]*textHolder{}}
	dir := t.TempDir()
	g := &textGroup{id: "c", group: Group(dir)}
	room := func() int {
		t.Helper()
		n, err := k.roomFor(g)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if room() <= 0 {
		t.Error("no room with nothing locked")
	}
	hold := func(container string, length int) {
		k.holders[len(k.holders)] = &textHolder{container: container, parts: [][]byte{mapped(t, -1, length, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)}}
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.max"), []byte("1048576\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hold("another", maxBeyond)
	if n := room(); n <= 0 || n > maxBeyond {
		t.Errorf("room for %d bytes, beside those of another container", n)
	}
	hold("c", maxBeyond)
	if n := room(); n > 0 {
		t.Errorf("room for %d bytes beyond a limit", n)
	}
	g.id, g.group = "", Group(filepath.Join(dir, "without a limit"))
	hold("another", 1<<44)
	if n := room(); n > 0 {
		t.Errorf("room for %d bytes when most of the memory is locked", n)
	}
}

// TestLooks: a turn ends, however many processes there are.
func TestLooks(t *testing.T) {
	k := &textKeeper{holders: map[int]*textHolder{}}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strings.Repeat("999999999\n", 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	looks := 15
	for _, want := range []int{5, 0, 0} {
		if err := k.lockText(&textGroup{group: Group(dir)}, Group(dir), &looks); err != nil || looks != want {
			t.Errorf("%d looks are left, want %d, %v", looks, want, err)
		}
	}
}

// TestOpenText opens files of the host, and nothing that a container may have put in the
// place of one.
func TestOpenText(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	host := served{mounts: map[uint64]bool{}}
	if _, err := openText(file, host); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a file of a container: %v", err)
	}
	for _, path := range []string{file, os.DevNull} {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
			t.Fatal(err)
		}
		host.mounts[st.Mnt_id] = true
	}
	f, err := openText(file, host)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, path := range []string{fifo, os.DevNull, dir} {
		if _, err := openText(path, host); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestReadList reads whole lines of the first part of a long list.
func TestReadList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maps")
	if err := os.WriteFile(path, []byte(strings.Repeat("a line\n", maxList)), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := readList(path)
	if err != nil || len(b) > maxList || len(b) < maxList/2 || !bytes.HasSuffix(b, []byte("a line\n")) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
