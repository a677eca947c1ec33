//go:build e2e

package cri_test

import (
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
	for _, p := range points[:full(len(points), 1)] {
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
