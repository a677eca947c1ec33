package share

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindExposesWhatWasAskedFor: what is mounted below a volume, before and
// after, is the guest's business only when the mount says so.
func TestBindExposesWhatWasAskedFor(t *testing.T) {
	f := newFixture(t)
	v := f.view("c")
	volume := t.TempDir()
	mount := func(dir string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(volume, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", filepath.Join(volume, dir), "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(filepath.Join(volume, dir), unix.MNT_DETACH) })
		if err := os.WriteFile(filepath.Join(volume, dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mount("")
	if err := unix.Mount("", volume, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(volume, "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount("before")
	exposed := make(map[Bind]string)
	for _, b := range []Bind{{}, {Deep: true}, {Follow: true}, {Deep: true, Follow: true}} {
		b.Source = volume
		name, _, err := v.Bind(b)
		if err != nil {
			t.Fatal(err)
		}
		exposed[b] = f.guestPath(name)
	}
	mount("later")
	for b, path := range exposed {
		for dir, want := range map[string]bool{"": true, "before": b.Deep, "later": b.Follow} {
			if _, err := os.Stat(filepath.Join(path, dir, "file")); (err == nil) != want {
				t.Errorf("deep %v, follow %v: %q: %v", b.Deep, b.Follow, dir, err)
			}
		}
	}
}
