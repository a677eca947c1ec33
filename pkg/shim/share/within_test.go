package share

import (
	"os"
	"path/filepath"
	"testing"
)

// subPath makes a volume and the mounts that a kubelet makes for a directory and
// a file of it.
func subPath(t *testing.T, vol string, memory bool) (dir, file string) {
	t.Helper()
	if memory {
		tmpfs(t, vol)
	}
	write(t, filepath.Join(vol, "a/b/file"), "text")
	outside := t.TempDir()
	dir, file = filepath.Join(outside, "dir"), filepath.Join(outside, "file")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, "")
	bindMount(t, filepath.Join(vol, "a/b"), dir)
	bindMount(t, filepath.Join(vol, "a/b/file"), file)
	return dir, file
}

// kinds runs a test with a volume that is a directory and one that is a file system.
func kinds(t *testing.T, test func(t *testing.T, f *fixture, memory bool)) {
	t.Run("disk", func(t *testing.T) { inBothNamespaces(t, func(t *testing.T, f *fixture) { test(t, f, false) }) })
	t.Run("memory", func(t *testing.T) { inBothNamespaces(t, func(t *testing.T, f *fixture) { test(t, f, true) }) })
}

// TestSubPath is found below the volume while that is exposed.
func TestSubPath(t *testing.T) {
	kinds(t, func(t *testing.T, f *fixture, memory bool) {
		vol := filepath.Join(t.TempDir(), "vol")
		dir, file := subPath(t, vol, memory)
		_, alone, _ := f.bind("first", Bind{Source: filepath.Join(vol, "a"), Within: true})
		whole, path, _ := f.bind("whole", Bind{Source: vol, Access: WriteBelow})
		if alone == filepath.Join(path, "a") {
			t.Error("what came before the volume is below it")
		}
		for source, want := range map[string]string{dir: "a/b", file: "a/b/file"} {
			v, part, guard := f.bind(filepath.Base(source), Bind{Source: source, Within: true})
			if part != filepath.Join(path, want) || guard {
				t.Errorf("%s: %s, guarded %v, want %s", source, part, guard, filepath.Join(path, want))
			}
			wantReadOnly(t, path, false) // a part that is written is the volume's writer
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			wantReadOnly(t, path, true)
		}
		for what, b := range map[string]Bind{
			"trusted to the guest": {Source: dir},
			"mapped":               {Source: dir, Within: true, IDs: IDMap{UIDs: "0:1000:1", GIDs: "0:1000:1"}},
		} {
			v := f.view(what)
			if part, _, err := v.Bind(b); err == nil && f.guestPath(part) == filepath.Join(path, "a/b") {
				t.Errorf("%s: %s", what, part)
			}
		}
		last, part, _ := f.bind("last", Bind{Source: dir, Within: true, Access: WriteBelow})
		if err := whole.Close(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(part, "file")); err != nil || string(b) != "text" {
			t.Errorf("after the other container: %q, %v", b, err)
		}
		if err := last.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSubPathThatMoved is not at its path any longer: it is exposed by itself.
func TestSubPathThatMoved(t *testing.T) {
	f := newFixture(t)
	vol := filepath.Join(t.TempDir(), "vol")
	dir, _ := subPath(t, vol, false)
	src, err := openSource(Bind{Source: dir, Within: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f.bind("whole", Bind{Source: vol})
	if err := os.Rename(filepath.Join(vol, "a"), filepath.Join(vol, "moved")); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"nothing":           func() error { return nil },
		"a link to it":      func() error { return os.Symlink("moved", filepath.Join(vol, "a")) },
		"another directory": func() error { return os.MkdirAll(filepath.Join(vol, "a/b"), 0o755) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if u, ok := f.volumes.findWithin(src); ok {
			t.Errorf("%s: found at %s", name, u.path())
		}
		if err := os.RemoveAll(filepath.Join(vol, "a")); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(vol, "a/below/file"), "")
	bindMount(t, filepath.Join(vol, "moved"), filepath.Join(vol, "a"))
	if u, ok := f.volumes.findWithin(src); ok {
		t.Errorf("through a mount: found at %s", u.path())
	}
}

// TestEmptyDir is exposed as a whole when a directory of it comes first, if it is
// the pod's own.
func TestEmptyDir(t *testing.T) {
	kinds(t, func(t *testing.T, f *fixture, memory bool) {
		volumes := filepath.Join(t.TempDir(), "pods/uid/volumes")
		vol := filepath.Join(volumes, "kubernetes.io~empty-dir/vol")
		dir, file := subPath(t, vol, memory)
		for _, pod := range []string{"", "other", "uid/volumes", "ui"} {
			v, path, _ := f.bind("pod "+filepath.Base(pod), Bind{Source: dir, Within: true, Pod: pod})
			if filepath.Base(path) == "b" {
				t.Errorf("pod %q gets %s", pod, path)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		other := filepath.Join(volumes, "kubernetes.io~csi/vol")
		write(t, filepath.Join(other, "a/file"), "")
		if _, path, _ := f.bind("of many", Bind{Source: filepath.Join(other, "a"), Within: true, Pod: "uid"}); filepath.Base(path) == "a" {
			t.Errorf("a volume that may have files of others is exposed: %s", path)
		}
		_, fromFile, _ := f.bind("file", Bind{Source: file, Within: true, Pod: "uid"})
		_, whole, _ := f.bind("whole", Bind{Source: vol, Within: true, Pod: "uid"})
		if want := filepath.Join(whole, "a/b/file"); fromFile != want {
			t.Errorf("%s, want %s", fromFile, want)
		}
	})
}

// TestNoPlace: what is not in the host's table of mounts is below nothing.
func TestNoPlace(t *testing.T) {
	for _, tt := range []struct {
		inner, outer place
		rel          string
		ok           bool
	}{
		{place{"8:1", "/v/a/b"}, place{"8:1", "/v"}, "a/b", true},
		{place{"8:1", "/a"}, place{"8:1", "/"}, "a", true},
		{place{"8:1", "/v"}, place{"8:1", "/v"}, "", false},
		{place{"8:1", "/vv/a"}, place{"8:1", "/v"}, "", false},
		{place{"8:2", "/v/a"}, place{"8:1", "/v"}, "", false},
		{place{"", "/v/a"}, place{"", "/v"}, "", false},
	} {
		if rel, ok := tt.inner.within(tt.outer); ok != tt.ok || ok && rel != tt.rel {
			t.Errorf("%v in %v: %q, %v", tt.inner, tt.outer, rel, ok)
		}
	}
}

// liveDir is the directory of volumes that the guest treats otherwise.
const liveDir = ".live"

// TestLive: a volume that the guest is to treat otherwise is one of its own, and nothing is
// found below it.
func TestLive(t *testing.T) {
	kinds(t, func(t *testing.T, f *fixture, memory bool) {
		vol := filepath.Join(t.TempDir(), "vol")
		dir, _ := subPath(t, vol, memory)
		_, live, _ := f.bind("live", Bind{Source: vol, Access: WriteBelow, Live: liveDir, Within: true})
		_, again, _ := f.bind("again", Bind{Source: vol, Access: WriteBelow, Live: liveDir, Within: true})
		_, plain, _ := f.bind("plain", Bind{Source: vol, Access: WriteBelow, Within: true})
		if filepath.Base(filepath.Dir(live)) != liveDir || again != live || filepath.Base(filepath.Dir(plain)) != volumesDir {
			t.Errorf("exposed as %s, %s and %s", live, again, plain)
		}
		if _, part, _ := f.bind("part", Bind{Source: dir, Access: WriteBelow, Within: true}); part != filepath.Join(plain, "a/b") {
			t.Errorf("a part is %s", part)
		}
	})
}
