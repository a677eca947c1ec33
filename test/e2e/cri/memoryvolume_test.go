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

// mount mounts something on a new directory until the test has ended.
func mount(t *testing.T, source, target, kind string, flags uintptr, options string) string {
	t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil { // nobody has it
			t.Error(err)
		}
	})
	return target
}

// TestMemoryVolume: an emptyDir in memory is a tmpfs of the size, the mode and the group that a
// kubelet has given it, and has what a container that is gone has written, links that lead to a part of it among that.
func TestMemoryVolume(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "memory", nil)
	kubelet := filepath.Join(t.TempDir(), "pods", pod.Config.Metadata.Uid)
	dir := mount(t, "tmpfs", kubelet+"/volumes/kubernetes.io~empty-dir/m", "tmpfs", 0, "size=4m,mode=2777,gid=2000")
	partOf := func(name string) string { // as a kubelet makes one for a subPath
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		return mount(t, filepath.Join(dir, name), kubelet+"/volume-subpaths/m/"+name+"/0", "", unix.MS_BIND, "")
	}
	part, link := partOf("part"), partOf("link")
	whole := mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/m"})
	first := pod.StartWith(t, "first", harness.Sleep, whole)
	first.WantOutput(t, "tmpfs 2777 2000", "sh", "-c", "echo $(stat -f -c %T /m) $(stat -c '%a %g' /m)")
	first.WantOutput(t, "4096", "sh", "-c", "df -k /m | awk 'END {print $2}'")
	first.WantOutput(t, "No space left on device", "sh", "-c", "dd if=/dev/zero of=/m/large bs=1M count=8 2>&1 | grep -o 'No space.*'; rm /m/large")
	first.WantOutput(t, "2000", "sh", "-c", "echo of the first >/m/file; mkdir /m/part; echo in the part >/m/part/file; ln -s part /m/link; stat -c %g /m/file")
	first.Remove(t)
	second := pod.StartWith(t, "second", harness.Sleep, mounted(
		&runtimeapi.Mount{HostPath: dir, ContainerPath: "/m", Readonly: true}, &runtimeapi.Mount{HostPath: part, ContainerPath: "/part"},
		&runtimeapi.Mount{HostPath: link, ContainerPath: "/link"}))
	second.WantOutput(t, "of the first", "cat", "/m/file")
	second.WantOutput(t, "in the part", "cat", "/part/file")
	second.WantOutput(t, "in the part", "cat", "/link/file")
	if out, status := second.Exec(t, "sh", "-c", "echo x >/m/other"); status == 0 || !strings.Contains(out, "Read-only file system") {
		t.Errorf("it is not read-only: %d, %s", status, out)
	}
	third := pod.StartWith(t, "third", harness.Sleep, whole)
	third.WantOutput(t, "now", "sh", "-c", "echo now >/m/part/now; cat /m/part/now")
	second.WantOutput(t, "now", "cat", "/part/now")
	pod.Remove(t)
}
