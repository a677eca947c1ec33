//go:build e2e

package cri_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestVolumes shares one VM between the kinds of volumes that a kubelet makes.
func TestVolumes(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	fillVolumes(t, dir)
	pod := shared.RunPod(t, "volumes", nil)
	mounts := []*runtimeapi.Mount{
		{HostPath: filepath.Join(dir, "alone", "file"), ContainerPath: "/mnt/file"},
		{HostPath: filepath.Join(dir, "data"), ContainerPath: "/mnt/data"},
		{HostPath: filepath.Join(dir, "data"), ContainerPath: "/mnt/ro", Readonly: true},
		{HostPath: filepath.Join(dir, "map"), ContainerPath: "/mnt/map", Readonly: true},
	}
	with := func(c *runtimeapi.ContainerConfig) { c.Mounts = mounts }
	a := pod.StartWith(t, "a", harness.Sleep, with)
	b := pod.StartWith(t, "b", harness.Sleep, with)
	t.Run("a file alone", func(t *testing.T) {
		a.WantOutput(t, "content", "cat", "/mnt/file")
		if out, _ := a.Exec(t, "ls", "/mnt"); strings.Contains(out, "secret") {
			t.Errorf("the file's directory is exposed: %s", out)
		}
	})
	t.Run("a directory both ways", func(t *testing.T) {
		a.WantOutput(t, "", "sh", "-c", "echo new > /mnt/data/new")
		if text, err := os.ReadFile(filepath.Join(dir, "data", "new")); err != nil || string(text) != "new\n" {
			t.Errorf("on the host: %q, %v", text, err)
		}
		b.WantOutput(t, "new", "cat", "/mnt/data/new")
		write(t, dir, "data/later", "later")
		b.WantOutput(t, "later", "cat", "/mnt/data/later")
	})
	t.Run("the same inode", func(t *testing.T) {
		first, _ := a.Exec(t, "stat", "-c", "%i", "/mnt/data/old")
		b.WantOutput(t, strings.TrimSpace(first), "stat", "-c", "%i", "/mnt/ro/old")
	})
	t.Run("read-only", func(t *testing.T) {
		if out, status := a.Exec(t, "sh", "-c", "echo x > /mnt/ro/old"); status == 0 {
			t.Errorf("could be written: %s", out)
		}
	})
	t.Run("an atomic swap", func(t *testing.T) { atomicSwap(t, a, filepath.Join(dir, "map")) })
	pod.Remove(t)
}

// write makes a file below dir.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fillVolumes makes what a kubelet makes: a file, a directory, and a directory
// whose content hangs on one link.
func fillVolumes(t *testing.T, dir string) {
	t.Helper()
	for name, text := range map[string]string{
		"alone/file": "content", "alone/secret": "not for the guest", "data/old": "old",
		"map/..v1/key": "one", "map/..v2/key": "two",
	} {
		write(t, dir, name, text)
	}
	for link, target := range map[string]string{"map/..data": "..v1", "map/key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
}

// atomicSwap replaces the link as a kubelet does.
func atomicSwap(t *testing.T, c *harness.PodContainer, dir string) {
	c.WantOutput(t, "one", "cat", "/mnt/map/key")
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink("..v2", next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the swap is seen in the guest", func() bool {
		out, _ := c.Exec(t, "cat", "/mnt/map/key")
		return strings.TrimSpace(out) == "two"
	})
}

// TestHostRemovesMountPoint takes a mount of the host's away while a container
// has it, and the directory under it, as the host can with any container.
func TestHostRemovesMountPoint(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	point := filepath.Join(dir, "mounted")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) }) // when the test fails early
	write(t, point, "file", "content")
	pod := shared.RunPod(t, "mount-point", nil)
	c := pod.StartWith(t, "main", harness.Sleep, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/mnt/data"}}
	})
	c.WantOutput(t, "content", "cat", "/mnt/data/mounted/file")
	if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(point); err != nil {
		t.Error(err)
	}
	pod.Remove(t)
}
