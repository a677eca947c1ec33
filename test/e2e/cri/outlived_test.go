//go:build e2e

package cri_test

import (
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestPodOutlivesSandboxContainer: when the sandbox container dies, the
// others run on until the pod is stopped.
func TestPodOutlivesSandboxContainer(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "outlived", nil)
	main := pod.StartWith(t, "main", harness.Sleep, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}
	})
	ctx := shared.Context()
	own, err := shared.Client.LoadContainer(ctx, pod.ID)
	if err != nil {
		t.Fatal(err)
	}
	task, err := own.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Kill(ctx, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "containerd deletes the sandbox's own task", func() bool {
		_, err := own.Task(ctx, nil)
		return errdefs.IsNotFound(err)
	})
	main.WantOutput(t, "alive", "echo", "alive")
	main.Stop(t, 10)
	if status := main.Wait(t); status.ExitCode != 0 {
		t.Errorf("exit status %d, want that of its own end", status.ExitCode)
	}
	pod.Remove(t)
}
