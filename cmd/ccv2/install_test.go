package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unpacked is a bundle with as much as there has to be.
func unpacked(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	var sums strings.Builder
	for name, text := range map[string]string{"VERSION": version, "share/ccv2/config.toml": "# of " + version, "bin/ccv2": "tool"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(text), 0o777)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(text)), name)
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestInstallModes: whatever the umask of who installs it, root alone may write what root
// runs, and others may read it.
func TestInstallModes(t *testing.T) {
	for _, umask := range []int{0, 0o77} {
		root := t.TempDir()
		bundle := unpacked(t, "1.0")
		before := unix.Umask(umask)
		err := runInstall([]string{"-root", root, "-bundle", bundle}, io.Discard, io.Discard)
		unix.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(filepath.Join(root, "opt"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Type() == fs.ModeSymlink {
				return err
			}
			info, err := d.Info()
			if err == nil && (info.Mode()&0o22 != 0 || info.Mode()&0o44 != 0o44) {
				t.Errorf("umask %03o: %s is %v", umask, path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestUpgradeWithoutFlags: the paths are those of before, so that a node of k3s does not
// lose its runtime.
func TestUpgradeWithoutFlags(t *testing.T) {
	root := t.TempDir()
	paths := []string{"-root", root, "-prefix", "/opt/ccv2/", "-bin", "/usr/bin/", "-config", "/etc/c.toml", "-containerd-config", "/k3s/config-v3.toml.tmpl"}
	if err := runInstall(append(paths, "-bundle", unpacked(t, "1.0")), io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := runUpgrade([]string{"-root", root, "-bundle", unpacked(t, "1.1")}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "etc/c.toml")); err != nil || string(b) != "# of 1.1" {
		t.Errorf("%q, %v", b, err)
	}
	for path, want := range map[string]bool{"/k3s/config-v3.toml.tmpl": true, "/usr/bin/ccv2": true, "/etc/containerd/config.toml": false, "/usr/local/bin/ccv2": false} {
		if _, err := os.Lstat(filepath.Join(root, path)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := runUninstall([]string{"-root", root}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestNodeRefuses: what is missing is said before anything is done.
func TestNodeRefuses(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	root := t.TempDir()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-root", root}, "NODE_NAME and POD_NAMESPACE"},
		{[]string{"-root", "host"}, "-root must be an absolute path"},
		{[]string{"-prefix", "/a\"b"}, "-prefix must be a path without quotation marks"},
		{[]string{"-ready"}, readyFile},
		{[]string{"now"}, `unexpected argument "now"`},
	} {
		if err := runNode(tt.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt.args, err)
		}
	}
}

// TestKindRefuses likewise.
func TestKindRefuses(t *testing.T) {
	bundle := unpacked(t, "1.0")
	for _, tt := range []struct {
		host string
		want string
	}{
		{"unix:///nothing", "name its socket in DOCKER_HOST"},
		{"ssh://user@host", "forward the engine's socket"},
		{"nothing", "settings of the engine (DOCKER_HOST"},
	} {
		t.Setenv("DOCKER_HOST", tt.host)
		if err := runInstall([]string{"-kind", "a", "-bundle", bundle}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.host, err)
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-kind", "", "-bundle", bundle}, "-kind needs the name of a cluster"},
		{[]string{"-nodes", "a", "-bundle", bundle}, "-kind needs the name of a cluster"},
		{[]string{"-kind", "a", "-root", "/x", "-bundle", bundle}, "-root is for the file system of another host"},
		{[]string{"-kind", "a", "-bundle", t.TempDir()}, "is no unpacked bundle"},
	} {
		if err := runInstall(tt.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt.args, err)
		}
	}
}
