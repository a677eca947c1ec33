//go:build e2e

package cri_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// publish writes a volume as a kubelet does: files into a new directory, and then the
// link that leads there.
func publish(t *testing.T, volume, data, text string) {
	t.Helper()
	write(t, filepath.Join(volume, data), "key", text)
	old, _ := os.Readlink(filepath.Join(volume, "..data"))
	err := errors.Join(
		os.Symlink(data, filepath.Join(volume, "..data_tmp")),
		os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	if err == nil && old == "" {
		err = os.Symlink("..data/key", filepath.Join(volume, "key"))
	} else if err == nil {
		err = os.RemoveAll(filepath.Join(volume, old))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// buildWatch builds a program that prints what is moved into a directory, and returns its
// directory.
func buildWatch(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "../testdata/watch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build watch: %v\n%s", err, out)
	}
	return dir
}

// watches is what a program does that reloads its configuration.
const watches = "exec /tools/watch /etc/c"

// TestLiveVolume: a program that waits for a change of its ConfigMap is told of it, and
// sees the new files then.
func TestLiveVolume(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "live", nil)
	dir := filepath.Join(t.TempDir(), "pods", pod.Config.Metadata.Uid, "volumes/kubernetes.io~configmap/c")
	publish(t, dir, "..1", "old")
	if err := os.Chown(filepath.Join(dir, "..1/key"), 1000, 2000); err != nil {
		t.Fatal(err)
	}
	volume := mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/etc/c", Readonly: true},
		&runtimeapi.Mount{HostPath: buildWatch(t), ContainerPath: "/tools", Readonly: true})
	first := pod.StartWith(t, "first", watches, volume)
	second := pod.StartWith(t, "second", watches, volume)
	all := []*harness.PodContainer{first, second}
	for _, c := range all {
		c.WantOutput(t, "old", "cat", "/etc/c/key")
		c.WantOutput(t, "1000 2000 644", "stat", "-L", "-c", "%u %g %a", "/etc/c/key")
		if out, status := c.Exec(t, "sh", "-c", "echo x > /etc/c/key || touch /etc/c/x"); status == 0 {
			t.Errorf("a ConfigMap can be written: %s", out)
		}
		awaitLog(t, c, "waits")
	}
	publish(t, dir, "..2", "new")
	for _, c := range all {
		awaitLog(t, c, "moved ..data\n")
		c.WantOutput(t, "new", "cat", "/etc/c/key") // at once, and not a second later
		c.WantOutput(t, "..2", "readlink", "/etc/c/..data")
		c.WantOutput(t, "..2\n..data\nkey", "ls", "-A", "/etc/c")
	}
	first.Remove(t)
	publish(t, dir, "..3", "newer")
	harness.Until(t, "the second container is told", func() bool { return strings.Count(second.Log(t), "moved ..data") == 2 })
	second.WantOutput(t, "newer", "cat", "/etc/c/key")
	second.Remove(t)
	third := pod.StartWith(t, "third", watches, volume)
	third.WantOutput(t, "newer", "cat", "/etc/c/key")
	pod.Remove(t)
}

// TestLivePart: a part of such a volume (subPath) is what it was when the container started,
// as with runc, whichever is there first.
func TestLivePart(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "livepart", nil)
	dir := filepath.Join(t.TempDir(), "pods", pod.Config.Metadata.Uid, "volumes/kubernetes.io~projected/c")
	publish(t, dir, "..1", "old")
	whole := &runtimeapi.Mount{HostPath: dir, ContainerPath: "/etc/c", Readonly: true}
	file := filepath.Join(t.TempDir(), "key")
	write(t, filepath.Dir(file), "key", "")
	if err := unix.Mount(filepath.Join(dir, "..1/key"), file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	part := &runtimeapi.Mount{HostPath: file, ContainerPath: "/part", Readonly: true}
	c := pod.StartWith(t, "both", harness.Sleep, mounted(whole, part))
	late := pod.StartWith(t, "part", harness.Sleep, mounted(part))
	publish(t, dir, "..2", "new")
	harness.Until(t, "the copy is new", func() bool { out, _ := c.Exec(t, "cat", "/etc/c/key"); return out == "new" })
	c.WantOutput(t, "old", "cat", "/part")
	late.WantOutput(t, "old", "cat", "/part")
	pod.Remove(t)
}
