package install

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReplacedBundle: a bundle that is replaced by another one while it is installed, as when
// two copy theirs to one place, is not installed under the name of the first.
func TestReplacedBundle(t *testing.T) {
	h := hostWith(t, "-")
	before := tree(t, h)
	dir, other := bundleOf(t, "1.0"), bundleOf(t, "1.1")
	replaced := false
	h.interrupt = func() error {
		if replaced {
			return nil
		}
		replaced = true
		return errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(other)))
	}
	if err := Install(h, dir, false, io.Discard); err == nil || !replaced {
		t.Errorf("%v: %v", err, tree(t, h))
	}
	h.interrupt = nil
	install(t, h, dir)
	uninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// TestModes: what is installed can be run by everybody, however it was unpacked, and what
// cannot be run any more is repaired.
func TestModes(t *testing.T) {
	h := hostWith(t, "-")
	dir := bundleOf(t, "1.0")
	path := h.at("/opt/ccv2/1.0/bin/ccv2")
	if err := errors.Join(os.Chmod(filepath.Join(dir, "bin/ccv2"), 0o700), os.Chmod(filepath.Join(dir, "VERSION"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []fs.FileMode{0, 0o644} {
		if damage != 0 {
			if err := os.Chmod(path, damage); err != nil {
				t.Fatal(err)
			}
		}
		install(t, h, dir)
		for name, want := range map[string]fs.FileMode{path: 0o755, h.at("/opt/ccv2/1.0/VERSION"): 0o644} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != want {
				t.Errorf("%s: %v", name, info.Mode())
			}
		}
	}
}
