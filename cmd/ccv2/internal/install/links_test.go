package install

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLinkedDirectories: links in the place of directories are followed on the host, where
// an absolute one begins at its root, and not at that of the process.
func TestLinkedDirectories(t *testing.T) {
	outside := t.TempDir()
	for name, data := range map[string]string{"absolute": outside, "relative": ".."} {
		h := hostWith(t, "-")
		if name == "relative" {
			h.Prefix, h.Bin, h.Config = "/x/opt/ccv2", "/x/bin", "/x/etc/ccv2.toml"
		}
		h.Containerd = filepath.Join(filepath.Dir(filepath.Dir(h.Prefix)), "containerd/config.toml")
		for path, target := range map[string]string{filepath.Dir(h.Prefix): "data/opt", h.Bin: "data/bin", filepath.Dir(h.Config): "data/etc", filepath.Dir(h.Containerd): "data/a/b/c"} {
			if name == "relative" && path == filepath.Dir(h.Config) {
				continue
			}
			target = filepath.Join(data, target)
			where := target
			if name == "relative" {
				where = filepath.Join(filepath.Dir(path), target)
			}
			write(t, filepath.Join(h.Root, where, "theirs"), "")
			link := filepath.Join(h.Root, path)
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, link); err != nil {
				t.Fatal(err)
			}
			if path == filepath.Dir(h.Containerd) {
				write(t, filepath.Join(h.Root, where, "../containerd.toml"), "version = 2\n")
				if err := os.Symlink("../containerd.toml", filepath.Join(h.Root, where, "config.toml")); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := tree(t, h)
		install(t, h, bundleOf(t, "1.0"))
		install(t, h, bundleOf(t, "1.1"))
		edited := false
		for path, text := range tree(t, h) {
			edited = edited || strings.HasSuffix(path, "/data/a/b/containerd.toml") && strings.Contains(text, "runtimes.ccv2]")
			if target := strings.TrimPrefix(text, "-> "); target != text && before[path] != "" && before[path] != text {
				t.Errorf("%s: %s was %s, and is %s", name, path, before[path], text)
			}
		}
		if !edited {
			t.Errorf("%s: containerd's configuration is not edited", name)
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Errorf("%s: outside of the host: %v, %v", name, entries, err)
		}
		uninstall(t, h)
		if diff := cmp.Diff(before, tree(t, h)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
	}
}

// TestPruneInterrupted: what an upgrade has left in the middle loses nothing to one who looks
// for files of earlier versions meanwhile, as the DaemonSet's pods do.
func TestPruneInterrupted(t *testing.T) {
	stop := errors.New("interrupted")
	for at, interrupted := 0, true; interrupted; at++ {
		h := hostWith(t, "version = 2\n")
		install(t, h, bundleOf(t, "1.0"))
		left := at
		interrupted = false
		broken := h
		broken.interrupt = func() error {
			if left--; left < 0 {
				interrupted = true
				return stop
			}
			return nil
		}
		next := bundleOf(t, "1.1")
		if err := Install(broken, next, false, io.Discard); interrupted != errors.Is(err, stop) {
			t.Fatal(err)
		}
		if err := Prune(h, io.Discard); err != nil {
			t.Errorf("interrupted at %d: %v", at, err)
		}
		if _, err := os.Stat(h.at("/opt/ccv2/current/bin/containerd-shim-ccv2")); err != nil {
			t.Errorf("interrupted at %d: no pod can be started: %v", at, err)
		}
		install(t, h, next)
		uninstall(t, h)
	}
}
