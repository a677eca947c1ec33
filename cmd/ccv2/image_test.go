package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestModulesOf a package that was unpacked, of a distribution before and after
// the merge of lib and usr/lib.
func TestModulesOf(t *testing.T) {
	const release = "6.12.0-1-cloud-amd64"
	for _, lib := range []string{"lib", "usr/lib"} {
		root := t.TempDir()
		want := filepath.Join(root, lib, "modules", release)
		if err := os.MkdirAll(want, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := modulesOf(filepath.Join(root, "boot/vmlinuz-"+release), release); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
