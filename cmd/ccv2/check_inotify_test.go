package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheckInotify: the instances of root that are left for pods.
func TestCheckInotify(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the processes of the test have to be root's")
	}
	for _, tt := range []struct {
		limit   string
		used    int
		verdict verdict
		detail  string
	}{
		{"8192\n", 3, verdictOK, "root has 8192 instances, 3 in use: one for each pod with ConfigMaps, Secrets and the like"},
		{"113\n", 3, verdictOK, "root has 113 instances, 3 in use"},
		{"112\n", 3, verdictWarn, "for more than 109 such pods changes are looked for once a second"},
		{"2\n", 3, verdictWarn, "for more than 0 such pods"},
		{"x\n", 3, verdictWarn, `parsing "x"`},
		{"", 0, verdictWarn, "no such file"},
	} {
		proc := t.TempDir()
		if err := os.MkdirAll(proc+"/sys/fs/inotify", 0o755); err != nil {
			t.Fatal(err)
		}
		if tt.limit != "" {
			writeFile(t, proc+"/sys/fs/inotify/max_user_instances", tt.limit, 0o644)
		}
		for i := range tt.used {
			descriptor(t, filepath.Join(proc, "1", "fd", string(rune('3'+i))), "anon_inode:inotify")
		}
		descriptor(t, proc+"/1/fd/9", "anon_inode:[eventpoll]")
		descriptor(t, proc+"/2/fd/3", "anon_inode:inotify") // another user's
		if err := os.Chown(proc+"/2", 1000, 1000); err != nil {
			t.Fatal(err)
		}
		got := checkInotify(proc)
		if got.verdict != tt.verdict || !strings.Contains(got.detail, tt.detail) || (got.fix == "") != (tt.verdict == verdictOK) {
			t.Errorf("limit %q, %d used: %+v", tt.limit, tt.used, got)
		}
	}
}

// TestInotifyUsed counts on this machine.
func TestInotifyUsed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the processes of the test have to be root's")
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Skipf("no inotify instance: %v", err)
	}
	defer unix.Close(fd)
	if n := inotifyUsed("/proc"); n < 1 {
		t.Errorf("%d instances", n)
	}
}

func descriptor(t *testing.T, path, target string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
