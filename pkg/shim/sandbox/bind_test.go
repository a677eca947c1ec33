package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestBindOf(t *testing.T) {
	for _, tt := range []struct {
		source  string
		options []string
		want    bind
	}{
		{"/a", nil, bind{source: "/a", deep: true, follow: true}},
		{"a/b", []string{"rbind", "rprivate", "ro"}, bind{source: "/bundle/a/b", access: writeBelow, deep: true}},
		{"/a", []string{"bind"}, bind{source: "/a", follow: true}},
		{"/a", []string{"bind", "rslave", "rro"}, bind{source: "/a", access: writeNothing, follow: true}},
		{"/a", []string{"private", "rshared", "bind", "rbind"}, bind{source: "/a", deep: true, follow: true}},
	} {
		if got := bindOf(specs.Mount{Source: tt.source, Options: tt.options}, "/bundle"); got != tt.want {
			t.Errorf("%s %v: %+v, want %+v", tt.source, tt.options, got, tt.want)
		}
	}
}

// TestBindShowsWhatWasAskedFor: what is mounted below a volume, before and
// after, is the guest's business only when the mount says so.
func TestBindShowsWhatWasAskedFor(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	c := f.create("c", "wait")
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
	shown := make(map[bind]string)
	for _, b := range []bind{{}, {deep: true}, {follow: true}, {deep: true, follow: true}} {
		b.source = volume
		name, _, err := c.share.bind(b)
		if err != nil {
			t.Fatal(err)
		}
		shown[b] = filepath.Join(f.Sandbox.dir.Shared(), name)
	}
	mount("later")
	for b, path := range shown {
		for dir, want := range map[string]bool{"": true, "before": b.deep, "later": b.follow} {
			if _, err := os.Stat(filepath.Join(path, dir, "file")); (err == nil) != want {
				t.Errorf("deep %v, follow %v: %q: %v", b.deep, b.follow, dir, err)
			}
		}
	}
}
