package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommand(t *testing.T) {
	root := t.TempDir()
	if _, _, err := command(root, []string{"/opt/x/bin/qemu"}); err == nil || !strings.Contains(err.Error(), "no program qemu") {
		t.Errorf("nothing there: %v", err)
	}
	for _, dir := range []string{"loader", "libexec"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "qemu"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	loader, argv, err := command(root, []string{"/opt/x/bin/qemu", "-a", "b"})
	if err != nil || loader != filepath.Join(root, "loader", "qemu") {
		t.Fatalf("%s, %v", loader, err)
	}
	want := []string{"/opt/x/bin/qemu", "--inhibit-cache", "--library-path", filepath.Join(root, "lib"), "--argv0", "/opt/x/bin/qemu", filepath.Join(root, "libexec", "qemu"), "-a", "b"}
	if diff := cmp.Diff(want, argv); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, _, err := command(root, nil); err == nil {
		t.Error("no arguments at all")
	}
}
