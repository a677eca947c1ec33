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

// TestFileSystems is about what the guest makes of the host's file systems: each
// is one of its own, once, whatever number of mounts there is of it.
func TestFileSystems(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "filesystems", func(p *runtimeapi.PodSandboxConfig) {
		p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Privileged: true} // a container drops the guest's caches
	})
	t.Run("are distinct", func(t *testing.T) { distinct(t, pod) })
	t.Run("one for all mounts of a volume", func(t *testing.T) { oneForAll(t, pod) })
	t.Run("one for an emptyDir that starts with a part", func(t *testing.T) { partFirst(t, pod) })
	t.Run("one for memory", func(t *testing.T) { oneMemory(t, pod) })
	t.Run("part behind a link", func(t *testing.T) { partBehindLink(t, pod) })
	pod.Remove(t)
}

// distinct: equal inode numbers are not hard links.
func distinct(t *testing.T, pod *harness.Pod) {
	root := t.TempDir()
	var mounts []*runtimeapi.Mount
	for _, name := range []string{"v1", "v2", "f1", "f2"} {
		dir := filepath.Join(root, name)
		tmpfs(t, dir, "size=1m")
		write(t, dir, "f", "text "+name)
		if err := os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if name[0] == 'f' {
			dir = filepath.Join(dir, "f")
		}
		mounts = append(mounts, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/" + name})
	}
	c := pod.StartWith(t, "apart", harness.Sleep, mounted(mounts...))
	inodes := make(map[string]bool)
	for _, path := range []string{"/v1/f", "/v2/f", "/f1", "/f2"} {
		out, _ := c.Exec(t, "stat", "-c", "%i", path)
		inodes[strings.TrimSpace(out)] = true
	}
	if len(inodes) != 1 {
		t.Errorf("the test is about equal inode numbers: %v", inodes)
	}
	devices := make(map[string]string)
	for _, path := range []string{"/", "/v1", "/v2", "/f1", "/f2"} {
		out, _ := c.Exec(t, "stat", "-c", "%d", path)
		if other := devices[out]; other != "" {
			t.Errorf("%s and %s have one device number: %s", other, path, out)
		}
		devices[out] = path
	}
	c.WantOutput(t, "text v1", "sh", "-c", "cp /v1/f /v2/f && cat /v2/f")
	c.WantOutput(t, "text f1", "sh", "-c", "cp /f1 /f2 && cat /f2")
	out, status := c.Exec(t, "sh", "-c", "cd / && tar cf /t v1 v2 && tar tvf /t")
	if status != 0 || strings.Count(out, " -> v1/") != 1 || strings.Count(out, " -> v2/") != 1 {
		t.Errorf("links in an archive of both: status %d:\n%s", status, out)
	}
	c.WantOutput(t, "/v1", "find", "/", "-xdev", "-path", "/v1*")
	c.WantOutput(t, "1", "grep", "-c", " /v1 ", "/proc/mounts")
}

// logs is a script with a log server on a socket.
func logs(socket string) string {
	return "ln -s " + socket + " /dev/log; exec syslogd -n -O -"
}

// sends connects to the socket of another container.
func sends(t *testing.T, c, server *harness.PodContainer, socket, text string) {
	t.Helper()
	c.WantOutput(t, "", "sh", "-c", "while [ ! -S "+socket+" ]; do sleep 0.1; done; ln -sf "+socket+" /dev/log; logger '"+text+"'")
	awaitLog(t, server, text)
}

// part mounts a directory of a volume elsewhere, as a kubelet does for a subPath.
func part(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := unix.Mount(dir, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return to
}

// oneForAll has a volume, a part of it and read-only mounts, in containers that
// come one after the other.
func oneForAll(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	tmpfs(t, dir, "size=1m")
	write(t, dir, "sub/file", "text")
	sub := part(t, filepath.Join(dir, "sub"))
	reader := pod.StartWith(t, "reads", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol", Readonly: true}))
	if out, status := reader.Exec(t, "touch", "/vol/x"); status == 0 {
		t.Errorf("the read-only mount can be written: %s", out)
	}
	server := pod.StartWith(t, "serves", logs("/part/log"), mounted(&runtimeapi.Mount{HostPath: sub, ContainerPath: "/part"}))
	client := pod.StartWith(t, "calls", harness.Sleep, mounted(
		&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"},
		&runtimeapi.Mount{HostPath: sub, ContainerPath: "/part", Readonly: true},
	))
	sends(t, reader, server, "/vol/sub/log", "from the reader")
	sends(t, client, server, "/vol/sub/log", "from the volume")
	sends(t, client, server, "/part/log", "from the part")
	for _, c := range []*harness.PodContainer{reader, client} {
		if out, status := c.Exec(t, "sh", "-c", "touch /vol/sub/x /part/x"); status == 0 {
			t.Errorf("a read-only mount can be written: %s", out)
		}
	}
	root := pod.StartWith(t, "drops", harness.Sleep, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Privileged: true}
	})
	root.WantOutput(t, "", "sh", "-c", "sync; echo 2 > /proc/sys/vm/drop_caches; echo 3 > /proc/sys/vm/drop_caches")
	server.WantOutput(t, "text", "cat", "/part/file")
	sends(t, reader, server, "/vol/sub/log", "with dropped caches")
	late := pod.StartWith(t, "late", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"}))
	sends(t, late, server, "/vol/sub/log", "from a late one")
	client.Remove(t)
	late.Remove(t)
	sends(t, reader, server, "/vol/sub/log", "with some of them gone")
}

// partFirst has a part of a volume that is the pod's own before the volume.
func partFirst(t *testing.T, pod *harness.Pod) {
	dir := filepath.Join(t.TempDir(), "pods", pod.Config.Metadata.Uid, "volumes/kubernetes.io~empty-dir/vol")
	write(t, dir, "sub/file", "text")
	sub := part(t, filepath.Join(dir, "sub"))
	server := pod.StartWith(t, "first", logs("/part/log"), mounted(&runtimeapi.Mount{HostPath: sub, ContainerPath: "/part"}))
	client := pod.StartWith(t, "second", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"}))
	sends(t, client, server, "/vol/sub/log", "from the volume")
	if out, _ := server.Exec(t, "ls", "/part/.."); strings.Contains(out, "sub\n") {
		t.Errorf("the rest of the volume is exposed: %s", out)
	}
}

// oneMemory: what one container frees is there for the others.
func oneMemory(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	tmpfs(t, dir, "size=1m,mode=0777")
	write(t, dir, "sub/file", "text")
	sub := part(t, filepath.Join(dir, "sub"))
	whole := pod.StartWith(t, "whole-memory", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/mem"}))
	some := pod.StartWith(t, "part-memory", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: sub, ContainerPath: "/mem"}))
	for range 5 {
		if out, status := some.Exec(t, "dd", "if=/dev/zero", "of=/mem/big", "bs=64k", "count=32"); status == 0 || !strings.Contains(out, "No space left") {
			t.Errorf("2 MiB in 1 MiB: status %d: %s", status, out)
		}
		whole.WantOutput(t, "", "rm", "/mem/sub/big")
		some.WantOutput(t, "", "sh", "-c", "dd if=/dev/zero of=/mem/more bs=64k count=12 2>/dev/null && rm /mem/more")
	}
}

// partBehindLink: a container replaces a directory on the way to a part of a
// volume. Another one never gets what the link leads to.
func partBehindLink(t *testing.T, pod *harness.Pod) {
	dir := t.TempDir()
	write(t, dir, "a/sub/file", "text")
	sub := part(t, filepath.Join(dir, "a", "sub"))
	first := pod.StartWith(t, "replaces", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"}))
	first.WantOutput(t, "", "sh", "-c", "mv /vol/a /vol/moved && ln -s / /vol/a && mkdir -p /vol/moved/other")
	second := pod.StartWith(t, "uses", harness.Sleep, mounted(&runtimeapi.Mount{HostPath: sub, ContainerPath: "/part"}))
	second.WantOutput(t, "text", "cat", "/part/file")
}
