package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

func TestDirOf(t *testing.T) {
	const root = "/run/ccv2"
	longest := maxDirLen - len(root+"/k8s.io/")
	for _, tt := range []struct {
		id     string
		hashed bool
	}{
		{"pod", false},
		{strings.Repeat("a", 64), false}, // the length of containerd's own ids
		{strings.Repeat("a", longest), false},
		{strings.Repeat("a", longest+1), true},
	} {
		d := DirOf(root, "k8s.io", tt.id)
		if plain := filepath.Join(root, "k8s.io", tt.id); (d.Path() == plain) == tt.hashed {
			t.Errorf("%d characters: %s", len(tt.id), d.Path())
		}
		if n := len(filepath.Join(d.VM(), "virtiofs.sock")); n > 107 {
			t.Errorf("%d characters: a socket's path has %d", len(tt.id), n)
		}
		if again := DirOf(root, "k8s.io", tt.id); again != d || Open(d.Path()) != d {
			t.Errorf("%s and %s", d, again)
		}
	}
	long := strings.Repeat("a", 80)
	if DirOf(root, "a", long) == DirOf(root, "b", long) || DirOf(root, "a", long+"1") == DirOf(root, "a", long+"2") {
		t.Error("two sandboxes have one directory")
	}
}

func TestRecord(t *testing.T) {
	d := DirOf(t.TempDir(), "ns", "pod")
	if _, err := d.Load(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	want := State{
		Version: Version, Namespace: "ns", ID: "pod", Created: time.Unix(1, 0).UTC(), Cgroup: "/a", NetNS: "/b", NetNSCookie: 7,
		Processes: []hostproc.Process{{Name: "qemu", PID: 7, Start: 8}}, Shim: hostproc.Process{Name: "shim", PID: 9, Start: 10},
	}
	if err := d.Create(want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Load(); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
	if err := d.Create(want); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second create: %v", err)
	}
	for dir, mode := range map[string]os.FileMode{d.Path(): 0o700, d.VM(): 0o700, d.Files(): 0o755, d.Shared(): 0o755, d.Stage(): 0o700} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	path := filepath.Join(d.Path(), stateFile)
	for text, part := range map[string]string{`{"version":99}`: "version 99, this release knows 1", `{`: "unexpected end of JSON"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Load(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
