package resident

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
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

// ofFile is how much of the process's memory is of files, in KiB.
func ofFile(t *testing.T) int {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(text)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}

func TestTrim(t *testing.T) {
	before := ofFile(t)
	if err := Trim(); err != nil {
		t.Fatal(err)
	}
	after := ofFile(t)
	if after >= before*3/4 {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
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
