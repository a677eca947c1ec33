//go:build e2e

package cri_test

import (
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestPod shares one VM between everything that a healthy pod does.
func TestPod(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "basics", func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = "basics-host"
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.99.0.1"}, Searches: []string{"example.test"}}
		c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "1024 65000"}
	})
	main := pod.Start(t, "main", harness.Sleep)
	t.Run("environment", func(t *testing.T) {
		main.WantOutput(t, "basics-host", "hostname")
		main.WantOutput(t, "1", "cat", "/proc/sys/kernel/shm_rmid_forced")
		main.WantContains(t, "65000", "cat", "/proc/sys/net/ipv4/ip_local_port_range")
		main.WantContains(t, "nameserver 10.99.0.1", "cat", "/etc/resolv.conf")
		main.WantContains(t, "search example.test", "cat", "/etc/resolv.conf")
	})
	t.Run("exec status", func(t *testing.T) {
		for _, status := range []int32{0, 1, 42} {
			if _, got := main.Exec(t, "sh", "-c", fmt.Sprintf("exit %d", status)); got != status {
				t.Errorf("got %d, want %d", got, status)
			}
		}
	})
	t.Run("network", func(t *testing.T) { podNetwork(t, main) })
	t.Run("second container", func(t *testing.T) { secondContainer(t, pod, main) })
	t.Run("pid namespaces", func(t *testing.T) { pidNamespaces(t, pod) })
	t.Run("containers come and go", func(t *testing.T) { comeAndGo(t, pod) })
	t.Run("logs", func(t *testing.T) { podLogs(t, pod) })
	t.Run("statistics", func(t *testing.T) { podStats(t, pod, main) })
	pod.Remove(t)
}

// podNetwork looks at the pod's interface and talks to the host.
func podNetwork(t *testing.T, c *harness.PodContainer) {
	c.WantContains(t, "10.99.0.", "ip", "-4", "addr", "show", "eth0")
	c.WantContains(t, "fd99::", "ip", "-6", "addr", "show", "eth0")
	c.WantContains(t, "default via 10.99.0.1", "ip", "route")
	for _, ping := range [][]string{{"ping", "-c1", "-W5", "10.99.0.1"}, {"ping6", "-c1", "-W5", "fd99::1"}} {
		if out, status := c.Exec(t, ping...); status != 0 {
			t.Errorf("%s: status %d\n%s", strings.Join(ping, " "), status, out)
		}
	}
}

// secondContainer shares the pod's memory, names and pids with the first.
func secondContainer(t *testing.T, pod *harness.Pod, first *harness.PodContainer) {
	second := pod.Start(t, "second", harness.Sleep)
	first.WantOutput(t, "", "sh", "-c", "echo shared > /dev/shm/x")
	second.WantOutput(t, "shared", "cat", "/dev/shm/x")
	second.WantOutput(t, "basics-host", "hostname")
	second.WantContains(t, "sleep", "ps")
	if out, _ := first.Exec(t, "cat", "/proc/1/comm"); strings.TrimSpace(out) != "sleep" {
		t.Errorf("pid 1 of the pod is %q, want the sandbox's own", out)
	}
	second.Stop(t, 0)
	second.Remove(t)
}

// pidNamespaces has containers see their own processes alone, or those of a
// chosen one as well.
func pidNamespaces(t *testing.T, pod *harness.Pod) {
	namespaces := func(mode runtimeapi.NamespaceMode, target string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: mode, TargetId: target},
			}
		}
	}
	private := namespaces(runtimeapi.NamespaceMode_CONTAINER, "")
	target := pod.StartWith(t, "target", "exec sleep 5000001", private)
	other := pod.StartWith(t, "other", "exec sleep 5000002", private)
	debugger := pod.StartWith(t, "debugger", "exec sleep 5000003", namespaces(runtimeapi.NamespaceMode_TARGET, other.ID))
	other.WantContains(t, "5000003", "ps")
	debugger.WantContains(t, "5000002", "cat", "/proc/1/cmdline")
	if out, _ := target.Exec(t, "ps"); strings.Contains(out, "5000002") || strings.Contains(out, "5000003") {
		t.Errorf("a container with pids of its own sees those of others:\n%s", out)
	}
	for _, c := range []*harness.PodContainer{debugger, other, target} {
		c.Stop(t, 0)
		c.Remove(t)
	}
}

// comeAndGo makes a container after the last one has gone, which is what init
// containers and restarts are.
func comeAndGo(t *testing.T, pod *harness.Pod) {
	for _, status := range []int32{0, 3} {
		c := pod.Start(t, "init", fmt.Sprintf("exit %d", status))
		if got := c.Wait(t); got.ExitCode != status {
			t.Errorf("exit code %d, want %d", got.ExitCode, status)
		}
		c.Remove(t)
	}
}

// podLogs checks that nothing is lost at the exit and that partial lines are
// marked.
func podLogs(t *testing.T, pod *harness.Pod) {
	c := pod.Start(t, "logger", `i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf partial; echo error >&2`)
	c.Wait(t)
	log := c.Log(t)
	if n := strings.Count(log, "stdout F line "); n != 2000 {
		t.Errorf("%d lines of 2000", n)
	}
	for _, want := range []string{"stdout F line 1999\n", "stdout P partial", "stderr F error\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	c.Remove(t)
}

func podStats(t *testing.T, pod *harness.Pod, c *harness.PodContainer) {
	c.Exec(t, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
	stats := c.Stats(t)
	if stats.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || stats.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("container statistics are empty: %v", stats)
	}
	network := pod.Stats(t).GetLinux().GetNetwork()
	if network.GetDefaultInterface().GetName() != "eth0" || network.GetDefaultInterface().GetRxBytes().GetValue() == 0 {
		t.Errorf("network statistics: %v", network)
	}
}
