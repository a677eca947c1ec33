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

// TestVolumeKinds shares one VM between what is done with volumes.
func TestVolumeKinds(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "kinds", nil)
	t.Run("shared by two containers", func(t *testing.T) { sharedVolume(t, pod) })
	t.Run("subPath", func(t *testing.T) { subPath(t, pod) })
	t.Run("memory", func(t *testing.T) { memoryVolume(t, pod) })
	t.Run("fsGroup", func(t *testing.T) { fsGroup(t, pod) })
	t.Run("HostToContainer", func(t *testing.T) { hostToContainer(t, pod) })
	t.Run("recursive read-only", func(t *testing.T) { recursiveReadOnly(t, pod) })
	pod.Remove(t)
}

// mounted adds a mount to a container.
func mounted(m ...*runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Mounts = append(c.Mounts, m...) }
}

// tmpfs mounts a file system for a test.
func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// sharedVolume wants of two containers on one volume what two processes on one
// directory have: sockets and locks are about the file.
func sharedVolume(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	rw := mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"})
	server := pod.StartWith(t, "server", "ln -s /vol/log /dev/log; exec syslogd -n -O -", rw)
	client := pod.StartWith(t, "client", "ln -s /vol/log /dev/log; "+harness.Sleep, rw)
	reader := pod.StartWith(t, "reader", "ln -s /vol/log /dev/log; "+harness.Sleep,
		mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol", Readonly: true}))
	client.WantOutput(t, "", "sh", "-c", "while [ ! -S /vol/log ]; do sleep 0.1; done")
	for name, c := range map[string]*harness.PodContainer{"server": server, "client": client, "reader": reader} {
		t.Run("socket/"+name, func(t *testing.T) {
			c.Exec(t, "logger", "hello from "+name)
			awaitLog(t, server, "hello from "+name)
		})
	}
	if out, status := reader.Exec(t, "touch", "/vol/x"); status == 0 {
		t.Errorf("the read-only mount can be written: %s", out)
	}
}

// subPath mounts a directory of a volume under other names.
func subPath(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	write(t, dir, "a/b/file", "text")
	whole := pod.StartWith(t, "whole", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"}))
	part := pod.StartWith(t, "part", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: filepath.Join(dir, "a", "b"), ContainerPath: "/part"}))
	part.WantOutput(t, "text", "cat", "/part/file")
	part.WantOutput(t, "", "sh", "-c", "echo new > /part/new")
	whole.WantOutput(t, "new", "cat", "/vol/a/b/new")
	inode, _ := whole.Exec(t, "stat", "-c", "%i", "/vol/a/b/file")
	part.WantOutput(t, strings.TrimSpace(inode), "stat", "-c", "%i", "/part/file")
	if out, _ := part.Exec(t, "ls", "/part/.."); strings.Contains(out, "a\n") {
		t.Errorf("the rest of the volume is exposed: %s", out)
	}
}

// memoryVolume has the size of the host's tmpfs.
func memoryVolume(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	tmpfs(t, dir, "size=1m,mode=0777")
	m := mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/mem"})
	a, b := pod.StartWith(t, "fills", harness.Sleep, m), pod.StartWith(t, "finds", harness.Sleep, m)
	if out, status := a.Exec(t, "dd", "if=/dev/zero", "of=/mem/big", "bs=64k", "count=32"); status == 0 || !strings.Contains(out, "No space left") {
		t.Errorf("2 MiB in 1 MiB: status %d: %s", status, out)
	}
	if out, status := b.Exec(t, "sh", "-c", "echo text > /mem/more"); status == 0 {
		t.Errorf("the other container has space: %s", out)
	}
	b.WantOutput(t, "", "rm", "/mem/big", "/mem/more")
	a.WantOutput(t, "text", "sh", "-c", "echo text > /mem/more; cat /mem/more")
}

// fsGroup is how a kubelet gives a volume to users: by a group.
func fsGroup(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	const user, group = 1234, 4000
	write(t, dir, "file", "old")
	for path, mode := range map[string]os.FileMode{dir: 0o770 | os.ModeSetgid, filepath.Join(dir, "file"): 0o660} {
		if err := os.Chown(path, 0, group); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	as := func(groups ...int64) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"})(c)
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
				RunAsUser: &runtimeapi.Int64Value{Value: user}, RunAsGroup: &runtimeapi.Int64Value{Value: user}, SupplementalGroups: groups,
			}
		}
	}
	stranger := pod.StartWith(t, "stranger", harness.Sleep, as())
	if out, status := stranger.Exec(t, "cat", "/vol/file"); status == 0 {
		t.Errorf("a stranger reads %s", out)
	}
	member := pod.StartWith(t, "member", harness.Sleep, as(group))
	member.WantOutput(t, "oldnew", "sh", "-c", "echo new >> /vol/file; cat /vol/file")
	for _, script := range []string{"touch /vol/new", "mkdir /vol/dir", "ln -s x /vol/link", "mkfifo /vol/fifo", "ln /vol/file /vol/hard", "mv /vol/new /vol/moved", "rm /vol/moved"} {
		if out, status := member.Exec(t, "sh", "-c", script); status != 0 {
			t.Errorf("%s: status %d: %s", script, status, out)
		}
	}
	member.WantOutput(t, "1234 4000", "stat", "-c", "%u %g", "/vol/dir")
	st, err := os.Stat(filepath.Join(dir, "dir"))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode()&os.ModeSetgid == 0 {
		t.Errorf("mode %s of a new directory", st.Mode())
	}
}

// hostToContainer mounts something below a volume that is in use.
func hostToContainer(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	tmpfs(t, dir, "size=1m")
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	follow := pod.StartWith(t, "follows", harness.Sleep, mounted(&runtimeapi.Mount{
		HostPath: dir, ContainerPath: "/vol", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	}))
	private := pod.StartWith(t, "stays", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"}))
	tmpfs(t, filepath.Join(dir, "later"), "size=1m")
	write(t, dir, "later/file", "mounted")
	harness.Until(t, "mount in the container", func() bool {
		out, _ := follow.Exec(t, "cat", "/vol/later/file")
		return out == "mounted"
	})
	private.WantOutput(t, "", "ls", "/vol/later")
}

// recursiveReadOnly is about what is mounted below a volume.
func recursiveReadOnly(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	tmpfs(t, filepath.Join(dir, "below"), "size=1m,mode=0777")
	c := pod.StartWith(t, "rro", harness.Sleep, mounted(
		&runtimeapi.Mount{HostPath: dir, ContainerPath: "/ro", Readonly: true},
		&runtimeapi.Mount{HostPath: dir, ContainerPath: "/rro", Readonly: true, RecursiveReadOnly: true},
	))
	c.WantOutput(t, "", "touch", "/ro/below/file")
	for _, path := range []string{"/ro/file", "/rro/file", "/rro/below/other"} {
		if out, status := c.Exec(t, "touch", path); status == 0 {
			t.Errorf("%s can be written: %s", path, out)
		}
	}
	c.WantOutput(t, "file", "ls", "/rro/below")
}
