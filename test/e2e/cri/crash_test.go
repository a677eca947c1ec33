//go:build e2e

package cri_test

import (
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestShimDies kills the shim of a pod in the middle of a call about it. The
// pod must be seen as lost, and be removed like any other.
func TestShimDies(t *testing.T) {
	t.Run("while the VM boots", func(t *testing.T) {
		shared.Watch(t)
		pod := shared.NewPod(t, "unborn", nil)
		answer := make(chan error, 1)
		go func() { answer <- pod.Run() }()
		harness.Until(t, "a VM", func() bool { return len(shared.FindAll(harness.QEMU)) > 0 })
		for _, shim := range shared.FindAll(harness.Shim) {
			shim.Signal(t, unix.SIGKILL)
		}
		if err := <-answer; err == nil {
			t.Error("RunPodSandbox succeeded")
		} else {
			t.Logf("RunPodSandbox says: %v", err)
		}
		pod.Sync(t)
	})
	points := []struct {
		name string
		call func(pod *harness.Pod, running, next *harness.PodContainer) error
	}{
		{"in StartContainer", func(_ *harness.Pod, _, next *harness.PodContainer) error { return next.Run() }},
		{"between calls", nil},
		{"in StopPodSandbox", func(pod *harness.Pod, _, _ *harness.PodContainer) error { return pod.End() }},
		{"in StopContainer", func(_ *harness.Pod, running, _ *harness.PodContainer) error { return running.TryStop(60) }},
	}
	for _, p := range points[:full(len(points), 1)] {
		t.Run(p.name, func(t *testing.T) { shimDies(t, p.call) })
	}
}

// shimDies kills the shim while a guest that stands still keeps a call waiting.
func shimDies(t *testing.T, call func(pod *harness.Pod, running, next *harness.PodContainer) error) {
	shared.Watch(t)
	pod := shared.RunPod(t, "lost", nil)
	running := pod.Start(t, "running", harness.Sleep)
	ended := pod.Start(t, "ended", "exit 3")
	ended.Wait(t)
	next := pod.Container("next", harness.Sleep, nil)
	if err := next.Create(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	if call != nil {
		shared.AwaitProcess(t, harness.QEMU, pod.ID).Signal(t, unix.SIGSTOP)
		go func() { answer <- call(pod, running, next) }()
	}
	shared.AwaitProcess(t, harness.Shim, pod.ID).Signal(t, unix.SIGKILL)
	if call != nil {
		t.Logf("the call says: %v", <-answer)
	}
	if len(pod.Sandboxes(t)) > 0 {
		harness.Until(t, "pod is lost", func() bool { return pod.State(t) == runtimeapi.PodSandboxState_SANDBOX_NOTREADY })
		if got := running.Wait(t); got.ExitCode != 255 { // containerd's word for "unknown"
			t.Errorf("exit code %d of a container that ran, want 255", got.ExitCode)
		}
		if got := ended.Status(t); got.ExitCode != 3 {
			t.Errorf("exit code %d of a container that had ended, want 3", got.ExitCode)
		}
	}
	pod.Sync(t)
	pod.Start(t, "again", harness.Sleep).WantOutput(t, "alive", "echo", "alive")
}

// TestBothDie kills containerd and then the shim: the next containerd finds out
// by itself.
func TestBothDie(t *testing.T) {
	c := ownCRI(t)
	c.Watch(t)
	pod := c.RunPod(t, "lost", nil)
	main := pod.Start(t, "main", harness.Sleep)
	c.Kill(t)
	c.AwaitProcess(t, harness.Shim, pod.ID).Signal(t, unix.SIGKILL)
	c.Restart(t)
	harness.Until(t, "loss of the pod", func() bool { return pod.State(t) == runtimeapi.PodSandboxState_SANDBOX_NOTREADY })
	if got := main.Wait(t); got.ExitCode != 255 {
		t.Errorf("exit code %d of a container that ran, want 255", got.ExitCode)
	}
	pod.Sync(t)
	pod.Start(t, "again", harness.Sleep).WantOutput(t, "alive", "echo", "alive")
}
