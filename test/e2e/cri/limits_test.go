//go:build e2e

package cri_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestLimits shares one VM between what limits and confines containers.
func TestLimits(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "limits", nil)
	t.Run("out of memory", func(t *testing.T) {
		c := pod.StartWith(t, "hungry", "head -c 200m /dev/zero | tail", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20}
		})
		got := c.Wait(t)
		if got.Reason != "OOMKilled" {
			t.Errorf("reason %q, exit code %d, want OOMKilled", got.Reason, got.ExitCode)
		}
		c.Remove(t)
	})
	t.Run("limits in the guest", func(t *testing.T) {
		c := pod.StartWith(t, "limited", harness.Sleep, func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: 64 << 20, CpuQuota: 20000, CpuPeriod: 100000,
			}
		})
		c.WantOutput(t, "67108864", "cat", "/sys/fs/cgroup/memory.max")
		c.WantOutput(t, "20000 100000", "cat", "/sys/fs/cgroup/cpu.max")
		c.Update(t, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuQuota: 30000, CpuPeriod: 100000})
		c.WantOutput(t, "100663296", "cat", "/sys/fs/cgroup/memory.max")
		c.Remove(t)
	})
	t.Run("processes of the sandbox", func(t *testing.T) { inPodGroup(t, pod) })
	t.Run("security context", func(t *testing.T) { securityContext(t, pod) })
	t.Run("seccomp profile", func(t *testing.T) { seccompProfile(t, pod) })
	pod.Remove(t)
}

// inPodGroup: whatever a program started for the sandbox, and whatever that starts,
// is in a group below the pod's, in each hierarchy that limits it.
func inPodGroup(t *testing.T, pod *harness.Pod) {
	shim := shared.Find(harness.Shim, pod.ID)
	if len(shim) != 1 {
		t.Fatalf("shims of the pod: %v", shim)
	}
	members := map[int]bool{shim[0].PID: true} // and all that they have started
	count := map[string]int{}
	for _, p := range shared.Processes() { // parents before children
		if !members[p.PID] && !members[parentOf(t, p)] {
			continue
		}
		members[p.PID] = true
		count[p.Name]++
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, controller := range []string{"memory", "cpu", "pids"} {
			if !strings.Contains(groupOf(string(b), controller), pod.Config.Linux.CgroupParent+"/") {
				t.Errorf("%s is not below the pod's group %s: %s", p, pod.Config.Linux.CgroupParent, b)
			}
		}
	}
	if len(count) != 3 || count["virtiofsd"] < 2 { // it forks
		t.Errorf("processes of the sandbox: %v, want the shim, QEMU and two of virtiofsd", count)
	}
}

// parentOf is the pid of a process's parent.
func parentOf(t *testing.T, p harness.Process) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nPPid:\t")
	pid, err := strconv.Atoi(strings.SplitN(rest, "\n", 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// groupOf is the path of a process's group, of a controller or of the unified
// hierarchy.
func groupOf(groups, controller string) string {
	unified := ""
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case slices.Contains(strings.Split(parts[1], ","), controller):
			return parts[2]
		case parts[1] == "":
			unified = parts[2]
		}
	}
	return unified
}

func securityContext(t *testing.T, pod *harness.Pod) {
	c := pod.StartWith(t, "confined", harness.Sleep, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			RunAsUser:          &runtimeapi.Int64Value{Value: 1234},
			RunAsGroup:         &runtimeapi.Int64Value{Value: 2345},
			SupplementalGroups: []int64{3456},
			ReadonlyRootfs:     true,
			NoNewPrivs:         true,
			Capabilities:       &runtimeapi.Capability{DropCapabilities: []string{"ALL"}},
			Seccomp:            &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			MaskedPaths:        []string{"/proc/kcore"},
			ReadonlyPaths:      []string{"/proc/sys"},
		}
	})
	c.WantOutput(t, "1234", "id", "-u")
	c.WantOutput(t, "2345", "id", "-g")
	c.WantContains(t, "3456", "id", "-G")
	status, _ := c.Exec(t, "cat", "/proc/self/status")
	for _, want := range []string{"CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("/proc/self/status lacks %q", want)
		}
	}
	if out, code := c.Exec(t, "sh", "-c", "echo x > /bin/x"); code == 0 {
		t.Errorf("the root file system is writable: %s", out)
	}
	c.Remove(t)
}

// seccompProfile applies a file of the host.
func seccompProfile(t *testing.T, pod *harness.Pod) {
	path := filepath.Join(t.TempDir(), "profile.json")
	profile := `{"defaultAction": "SCMP_ACT_ALLOW",
		"syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`
	if err := os.WriteFile(path, []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	c := pod.StartWith(t, "profiled", harness.Sleep, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: path},
		}
	})
	if out, status := c.Exec(t, "mkdir", "/tmp/x"); status == 0 || !strings.Contains(out, "not permitted") {
		t.Errorf("mkdir: status %d: %s", status, out)
	}
	c.WantOutput(t, "", "touch", "/tmp/x")
	c.Remove(t)
}
