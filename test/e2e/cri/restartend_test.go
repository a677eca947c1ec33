//go:build e2e

package cri_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestRestartInEndOfPod kills containerd while a pod with a container is stopped
// and removed. Whoever repeats the call finds no difference.
func TestRestartInEndOfPod(t *testing.T) {
	c := ownCRI(t)
	begin := 0 // of the test's part of the log
	asked := func(*harness.Events, *harness.Pod) bool { return strings.Contains(c.Log()[begin:], "Kill container") }
	points := []struct {
		name    string
		hold    bool // the guest stands still until containerd is dead
		reached func(*harness.Events, *harness.Pod) bool
	}{
		{"the guest is asked to kill", true, asked},
		{"the task is deleted", false, func(e *harness.Events, pod *harness.Pod) bool { return e.Has("delete", pod.ID) }},
		{"the container has ended", false, func(e *harness.Events, _ *harness.Pod) bool { return e.Seen("exit") }},
		{"the sandbox has ended", false, func(e *harness.Events, pod *harness.Pod) bool { return e.Has("exit", pod.ID) }},
		{"the VM has gone", false, func(*harness.Events, *harness.Pod) bool { return len(c.FindAll(harness.QEMU)) == 0 }},
		{"the shim has gone", false, func(*harness.Events, *harness.Pod) bool { return len(c.FindAll(harness.Shim)) == 0 }},
	}
	for _, p := range points[:full(len(points), 2)] {
		t.Run(p.name, func(t *testing.T) {
			c.Watch(t)
			pod := c.RunPod(t, "ending", nil)
			main := pod.Start(t, "main", harness.Sleep)
			vm := c.AwaitProcess(t, harness.QEMU, pod.ID)
			events := c.Record(t)
			begin = len(c.Log())
			if p.hold {
				vm.Signal(t, unix.SIGSTOP)
			}
			c.KillDuring(t, p.name, func() bool { return p.reached(events, pod) }, pod.End)
			if p.hold {
				vm.Signal(t, unix.SIGCONT)
			}
			c.Restart(t)
			if err := pod.End(); err != nil {
				t.Errorf("the call again: %v", err)
			}
			if got := pod.Sandboxes(t); len(got) != 0 {
				t.Errorf("the CRI still knows %v", got)
			}
			if got := main.Attempts(t); len(got) != 0 {
				t.Errorf("the CRI still knows %v", got)
			}
		})
	}
}

// TestRestartSweep kills containerd at many points of each call, which are
// counted by what changes on the host meanwhile.
func TestRestartSweep(t *testing.T) {
	if full(1, 0) == 0 {
		t.Skip("takes minutes: make e2e-full")
	}
	c := ownCRI(t)
	t.Run("RunPodSandbox", func(t *testing.T) {
		sweep(t, c, func(t *testing.T) *harness.Pod { return c.NewPod(t, "swept", nil) },
			func(pod *harness.Pod, _ *harness.PodContainer) error { return pod.Run() })
	})
	running := func(t *testing.T) *harness.Pod { return c.RunPod(t, "swept", nil) }
	t.Run("StartContainer", func(t *testing.T) {
		sweep(t, c, running, func(_ *harness.Pod, main *harness.PodContainer) error {
			if err := main.Create(); err != nil {
				return err
			}
			return main.Run()
		})
	})
	t.Run("StopContainer", func(t *testing.T) {
		sweep(t, c, running, func(_ *harness.Pod, main *harness.PodContainer) error {
			if err := main.Create(); err != nil {
				return err
			}
			if err := main.Run(); err != nil {
				return err
			}
			return main.TryStop(1)
		})
	})
	t.Run("RemovePodSandbox", func(t *testing.T) {
		sweep(t, c, running, func(pod *harness.Pod, main *harness.PodContainer) error {
			if err := main.Create(); err != nil {
				return err
			}
			if err := main.Run(); err != nil {
				return err
			}
			return pod.End()
		})
	})
}

// sweep carries out a call once to learn how many steps it has, and then again
// and again with an end of containerd in the middle.
func sweep(t *testing.T, c *harness.CRI, begin func(*testing.T) *harness.Pod, call func(*harness.Pod, *harness.PodContainer) error) {
	t.Helper()
	const points = 12
	steps := 0
	t.Run("whole", func(t *testing.T) {
		c.Watch(t)
		pod := begin(t)
		steps = c.Steps(t, func() error { return call(pod, pod.Container("main", harness.Sleep, nil)) })
	})
	for i := range points {
		at := 1 + steps*i/points
		t.Run(fmt.Sprintf("%d of %d", at, steps), func(t *testing.T) {
			c.Watch(t)
			pod := begin(t)
			main := pod.Container("main", harness.Sleep, nil)
			progress := c.Progress()
			c.KillDuring(t, "so many steps", func() bool { return progress.Steps() >= at },
				func() error { return call(pod, main) })
			c.Restart(t)
			pod.Sync(t)
			main.Sync(t)
			main.WantOutput(t, "alive", "echo", "alive")
			harness.Until(t, "end of the VMs of other attempts", func() bool { return len(c.FindAll(harness.QEMU)) == 1 })
		})
	}
}
