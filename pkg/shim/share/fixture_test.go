package share

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is the share of a sandbox that the host's namespace serves.
type fixture struct {
	t *testing.T
	*Shares
}

// newFixture makes a share. When the test ends nothing of it must be mounted or
// left, once its views are closed.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir := t.TempDir()
	opts := Options{Files: filepath.Join(dir, "files"), Shared: filepath.Join(dir, "shared"), Stage: filepath.Join(dir, "stage")}
	for _, path := range []string{opts.Files, opts.Shared, opts.Stage} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{t: t, Shares: New(opts)}
	t.Cleanup(f.end)
	if err := f.Prepare(); err != nil {
		t.Fatal(err)
	}
	return f
}

// end looks for what the views have left.
func (f *fixture) end() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Error(err)
	}
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(f.opts.Stage))
	if err != nil || len(all) != 0 {
		f.t.Errorf("still mounted: %v, %v", all, err)
	}
	for _, dir := range []string{f.opts.Shared, f.opts.Files} {
		if all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir)); err != nil || len(all) != 1 {
			f.t.Errorf("mounts: %v, %v", all, err)
		}
		if err := mounts.Unmount(dir); err != nil {
			f.t.Error(err)
		}
	}
	for _, dir := range []string{f.opts.Files, f.opts.Stage, filepath.Join(f.opts.Files, volumesDir)} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.Error(err)
		}
		for _, e := range entries {
			if e.Name() != volumesDir {
				f.t.Errorf("left: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
}

// view makes the view of a container, which is closed when the test ends.
func (f *fixture) view(id string) *View {
	f.t.Helper()
	v, err := f.Container(id)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := v.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return v
}

// guestPath is where a path of the share is in what the guest gets.
func (f *fixture) guestPath(path string) string { return filepath.Join(f.opts.Shared, path) }

// bind exposes a directory to a new container and returns where it is.
func (f *fixture) bind(id string, b Bind) (v *View, path string, guard bool) {
	f.t.Helper()
	v = f.view(id)
	name, guard, err := v.Bind(b)
	if err != nil {
		f.t.Fatal(err)
	}
	return v, f.guestPath(name), guard
}
