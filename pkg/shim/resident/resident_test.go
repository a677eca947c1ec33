package resident

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const some = `00400000-00885000 r-xp 00000000 08:01 77 /usr/bin/a program
Rss:                4692 kB
Anonymous:             0 kB
Swap:                  0 kB
Locked:                0 kB
VmFlags: rd ex mr mw me
00885000-00e10000 r--p 00485000 08:01 77 /usr/bin/a program
Anonymous:             4 kB
Swap:                  0 kB
00e10000-00e20000 rw-p 00a10000 08:01 77 /usr/bin/a program
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--s 00000000 08:01 78 /usr/share/data
Anonymous:             0 kB
7f0000010000-7f0000011000 r--p 00000000 08:01 79 /usr/lib/swapped.so
Anonymous:             0 kB
Swap:                  4 kB
7f0000020000-7f0000021000 r--p 00000000 08:01 79 /usr/lib/locked.so
Anonymous:             0 kB
Locked:                4 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7ffd10000000-7ffd10001000 ---p 00000000 08:01 79 /usr/lib/guard.so
Anonymous:             0 kB
7ffd20000000-7ffd20001000 r--p 00000000 08:01 80 /usr/lib/last.so
Anonymous:             0 kB
`

func TestClean(t *testing.T) {
	found, err := clean(strings.NewReader(some))
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{{0x400000, 0x885000}, {0x7ffd20000000, 0x7ffd20001000}}
	if len(found) != len(want) || found[0] != want[0] || found[1] != want[1] {
		t.Errorf("clean mappings: %#x, want %#x", found, want)
	}
}

func TestUnreadable(t *testing.T) {
	for _, text := range []string{
		"00400000-00885000 r-xp\n",
		"00400000-x r-xp 00000000 08:01 77 /usr/bin/program\n",
		"x-00885000 r-xp 00000000 08:01 77 /usr/bin/program\n",
		"00400000-00885000 r-xp 00000000 08:01 77 /usr/bin/program\nAnonymous: some kB\n",
	} {
		if found, err := clean(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %#x and no error", text, found)
		}
	}
}

// TestTrim gives a file's pages back that the process has read.
func TestTrim(t *testing.T) {
	const size = 4 << 20
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(pages); err != nil {
			t.Error(err)
		}
	}()
	if n := bytes.Count(pages, []byte("x")); n != size {
		t.Fatalf("the file has %d bytes, want %d", n, size)
	}
	if resident(t, name) == 0 { // the host may have taken some of them
		t.Fatal("nothing of the file is in memory after it was read")
	}
	if err := Trim(); err != nil {
		t.Fatal(err)
	}
	if got := resident(t, name); got != 0 {
		t.Errorf("%d KiB of the file are still in memory", got)
	}
	if pages[0] != 'x' || pages[size-1] != 'x' {
		t.Error("the file reads otherwise")
	}
}

// resident is how much of a file this process has in memory, in KiB.
func resident(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, mapping, _ := strings.Cut(string(b), name+"\n")
	_, rss, ok := strings.Cut(mapping, "\nRss:")
	var n int
	if _, err := fmt.Sscanf(rss, "%d kB", &n); !ok || err != nil {
		t.Fatalf("%s is not mapped: %v", name, err)
	}
	return n
}

// TestProgram: the code of this program is among what is given back.
func TestProgram(t *testing.T) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found, err := clean(f)
	if err != nil {
		t.Fatal(err)
	}
	code := reflect.ValueOf(Trim).Pointer()
	if !slices.ContainsFunc(found, func(m mapping) bool { return m.start <= code && code < m.end }) {
		t.Errorf("%#x is not in one of %#x", code, found)
	}
}

// TestDue trims after work, once.
func TestDue(t *testing.T) {
	var trimmer Trimmer
	used := time.Duration(0)
	for i, tt := range []struct {
		took time.Duration // since the tick before
		want bool
	}{
		{time.Second, true},             // a shim has started a pod
		{time.Millisecond, false},       // signs of life
		{idleTime, false},               // no more than that
		{50 * time.Millisecond, true},   // some requests
		{2 * busyTime, false},           // it works
		{2 * busyTime, false},           //
		{time.Millisecond, true},        // it has ended
		{time.Millisecond, false},       //
		{10 * time.Millisecond, true},   // one request
		{300 * time.Microsecond, false}, //
	} {
		used += tt.took
		if got := trimmer.due(used); got != tt.want {
			t.Errorf("tick %d, after %v: due is %v", i, tt.took, got)
		}
	}
}

func TestTick(t *testing.T) {
	var trimmer Trimmer
	if err := trimmer.Tick(); err != nil {
		t.Fatal(err)
	}
	if !trimmer.trimmed {
		t.Error("the first tick has not trimmed")
	}
}

func BenchmarkTrim(b *testing.B) {
	for b.Loop() {
		if err := Trim(); err != nil {
			b.Fatal(err)
		}
	}
}
