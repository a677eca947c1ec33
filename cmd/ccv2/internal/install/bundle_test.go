package install

import (
	"errors"
	"io"
	"os"
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
