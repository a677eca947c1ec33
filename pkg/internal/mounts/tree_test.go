package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveTree(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	tree := filepath.Join(dir, "tree")
	for _, path := range []string{outside, filepath.Join(tree, "a/b/c"), filepath.Join(tree, "empty")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(tree, "a/b", fmt.Sprint("file", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(tree, "a/link")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is idempotent
		if err := RemoveTree(tree); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(tree); !os.IsNotExist(err) { //nolint:forbidigo // of Lstat
		t.Errorf("left: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("followed a link: %v", err)
	}
	if err := RemoveTree(filepath.Join(dir, "no/such/tree")); err != nil {
		t.Error(err)
	}
}

// TestRemoveTreeStopsAtMounts: even a mount of the same file system.
func TestRemoveTreeStopsAtMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	volume, target := filepath.Join(dir, "volume"), filepath.Join(dir, "tree/a/mounted")
	file, fileTarget := filepath.Join(dir, "file"), filepath.Join(dir, "tree/file")
	for _, path := range []string{volume, target} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{filepath.Join(volume, "data"), file, fileTarget} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{volume: target, file: fileTarget} {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("mount: %v", err)
		}
		defer func() { _ = unix.Unmount(to, unix.MNT_DETACH) }()
	}
	err := RemoveTree(filepath.Join(dir, "tree"))
	if err == nil || !strings.Contains(err.Error(), "something is mounted there") {
		t.Errorf("error %v", err)
	}
	for _, path := range []string{filepath.Join(volume, "data"), file} {
		if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if err := Unmount(filepath.Join(dir, "tree")); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(filepath.Join(dir, "tree")); err != nil {
		t.Error(err)
	}
}
