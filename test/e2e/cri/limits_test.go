//go:build e2e

package cri_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestLimits shares one VM between what limits and confines containers.
func TestLimits(t *testing.T) {
	shared.Watch(t)
	shared.NoSpares(t) // who makes the next one is the shim's child, and in none of the pod's groups
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
	t.Run("processes of the sandbox", func(t *testing.T) {
		group := string(shared.GroupOf(t, pod.ID))
		if !strings.HasPrefix(group, pod.Config.Linux.CgroupParent+"/") {
			t.Errorf("the sandbox is in %s, not below the pod's group %s", group, pod.Config.Linux.CgroupParent)
		}
	})
	t.Run("security context", func(t *testing.T) { securityContext(t, pod) })
	t.Run("seccomp profile", func(t *testing.T) { seccompProfile(t, pod) })
	pod.Remove(t)
}

// TestHostOutOfMemory: a pod whose VM exceeds what the kubelet has given the pod is
// ended by the host, and every container says so.
func TestHostOutOfMemory(t *testing.T) {
	shared.Watch(t)
	pod := shared.NewPod(t, "dear", nil)
	pod.LimitMemory(t, 320<<20)
	if err := pod.Run(); err != nil {
		t.Fatal(err)
	}
	bystander := pod.Start(t, "bystander", harness.Sleep)
	hungry := pod.Start(t, "hungry", "head -c 380m /dev/zero | tail")
	for _, c := range []*harness.PodContainer{hungry, bystander} {
		if got := c.Wait(t); got.Reason != "OOMKilled" || got.ExitCode != 137 {
			t.Errorf("%s: reason %q, exit code %d, want OOMKilled", got.Metadata.Name, got.Reason, got.ExitCode)
		}
	}
	pod.Remove(t)
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
