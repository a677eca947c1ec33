//go:build e2e

package cri_test

import (
	"fmt"
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestRestartSweep kills containerd at many points of each call.
func TestRestartSweep(t *testing.T) {
	sweep(t, func(t *testing.T, c *harness.CRI, _ *harness.Pod, reached func() bool, call func() error) {
		c.KillDuring(t, "so many steps", reached, call)
		c.Restart(t)
	})
}

// TestShimSweep does the same to the shim.
func TestShimSweep(t *testing.T) {
	sweep(t, func(t *testing.T, c *harness.CRI, pod *harness.Pod, reached func() bool, call func() error) {
		if !c.KillShimDuring(t, "so many steps", reached, call) {
			return
		}
		harness.Until(t, "loss of the pod", func() bool {
			return !slices.ContainsFunc(pod.Sandboxes(t), func(s *runtimeapi.PodSandbox) bool {
				return s.State == runtimeapi.PodSandboxState_SANDBOX_READY
			})
		})
	})
}

// strike carries out a call up to a point and kills something there.
type strike func(t *testing.T, c *harness.CRI, pod *harness.Pod, reached func() bool, call func() error)

// sweep strikes at many points of each call, which are counted by what changes
// on the host meanwhile.
func sweep(t *testing.T, hit strike) {
	if full(1, 0) == 0 {
		t.Skip("takes minutes: make e2e-full")
	}
	c := ownCRI(t)
	start := func(main *harness.PodContainer) error {
		if err := main.Create(); err != nil {
			return err
		}
		return main.Run()
	}
	calls := []struct {
		name  string
		ready bool // the pod runs before
		call  func(*harness.Pod, *harness.PodContainer) error
	}{
		{"RunPodSandbox", false, func(pod *harness.Pod, _ *harness.PodContainer) error { return pod.Run() }},
		{"StartContainer", true, func(_ *harness.Pod, main *harness.PodContainer) error { return start(main) }},
		{"StopContainer", true, func(_ *harness.Pod, main *harness.PodContainer) error {
			if err := start(main); err != nil {
				return err
			}
			return main.TryStop(1)
		}},
		{"RemovePodSandbox", true, func(pod *harness.Pod, main *harness.PodContainer) error {
			if err := start(main); err != nil {
				return err
			}
			return pod.End()
		}},
	}
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) { sweepCall(t, c, call.ready, call.call, hit) })
	}
}

// sweepCall carries out a call once to learn how many steps it has, and then
// again and again with a strike in the middle.
func sweepCall(t *testing.T, c *harness.CRI, ready bool, call func(*harness.Pod, *harness.PodContainer) error, hit strike) {
	begin := func(t *testing.T) (*harness.Pod, *harness.PodContainer) {
		t.Helper()
		c.Watch(t)
		pod := c.NewPod(t, "swept", nil)
		if ready {
			pod.Sync(t)
		}
		return pod, pod.Container("main", harness.Sleep, nil)
	}
	steps := 0
	t.Run("whole", func(t *testing.T) {
		pod, main := begin(t)
		steps = c.Steps(t, func() error { return call(pod, main) })
	})
	const points = 12
	for i := range points {
		at := 1 + steps*i/points
		t.Run(fmt.Sprintf("%d of %d", at, steps), func(t *testing.T) {
			pod, main := begin(t)
			progress := c.Progress()
			hit(t, c, pod, func() bool { return progress.Steps() >= at }, func() error { return call(pod, main) })
			pod.Sync(t)
			main.Sync(t)
			main.WantOutput(t, "alive", "echo", "alive")
			harness.Until(t, "end of the VMs of other attempts", func() bool { return len(c.FindAll(harness.QEMU)) == 1 })
		})
	}
}
