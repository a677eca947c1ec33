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

// TestUserNamespace runs a pod with hostUsers: false: root in its containers is
// an ordinary user of the guest, and what it writes to a volume is root's.
func TestUserNamespace(t *testing.T) {
	shared.Watch(t)
	ids := []*runtimeapi.IDMapping{{ContainerId: 0, HostId: 65536 * 3, Length: 65536}}
	users := &runtimeapi.NamespaceOption{
		Pid:           runtimeapi.NamespaceMode_CONTAINER,
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids},
	}
	pod := shared.RunPod(t, "users", func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = "users-host"
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: users}
		c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1"}
	})
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "private"), []byte("of root"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(name string) *harness.PodContainer {
		return pod.StartWith(t, name, harness.Sleep, func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: users}
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/volume", HostPath: volume, UidMappings: ids, GidMappings: ids}}
		})
	}
	first, second := start("first"), start("second")
	for _, c := range []*harness.PodContainer{first, second} {
		c.WantOutput(t, "0", "id", "-u")
		c.WantOutput(t, "0 196608 65536", "sh", "-c", "echo $(cat /proc/self/uid_map)")
		c.WantOutput(t, "users-host", "hostname")
		c.WantOutput(t, "unlimited unlimited 524288", "sh", "-c", "echo $(ulimit -u) $(ulimit -i) $(ulimit -Hn)")
		c.WantOutput(t, "1", "cat", "/proc/sys/kernel/shm_rmid_forced")
		c.WantOutput(t, "of root", "cat", "/volume/private")
		c.WantOutput(t, "0 0", "stat", "-c", "%u %g", "/bin/busybox")
		c.WantOutput(t, "ok", "sh", "-c", "echo ok > /bin/file && cat /bin/file && echo > /dev/shm/x && rm /dev/shm/x")
	}
	first.WantContains(t, "Connection refused", "sh", "-c", "! nc -w 5 10.99.0.1 9 </dev/null 2>&1") // by the host
	first.WantOutput(t, "", "httpd", "-p", "80")
	first.WantOutput(t, "", "sh", "-c", "echo new > /volume/new && chmod 600 /volume/new")
	second.WantOutput(t, "new", "cat", "/volume/new")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(volume, "new"), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the file on the host: owner %d:%d, error %v", st.Uid, st.Gid, err)
	}
	ipc, _ := first.Exec(t, "readlink", "/proc/self/ns/ipc")
	second.WantOutput(t, strings.TrimSpace(ipc), "readlink", "/proc/self/ns/ipc")
	pod.Remove(t)
}
