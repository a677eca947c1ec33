//go:build e2e

package cri_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// full chooses between the figure that the product promises and a shorter one
// that finds the same defects most of the time (make e2e-full).
func full(promised, short int) int {
	if os.Getenv("CCV2_FULL") != "" {
		return promised
	}
	return short
}

// TestPodsAtOnce runs pods side by side and removes them side by side.
func TestPodsAtOnce(t *testing.T) {
	shared.Watch(t)
	var running sync.WaitGroup
	for i := range full(10, 3) {
		running.Go(func() {
			pod := shared.RunPod(t, fmt.Sprintf("crowd-%d", i), nil)
			c := pod.Start(t, "main", harness.Sleep)
			c.WantOutput(t, fmt.Sprint(i), "echo", fmt.Sprint(i))
			pod.Remove(t)
		})
	}
	running.Wait()
}

// TestProbes runs what a kubelet's exec probe runs, again and again, and looks
// whether the shim holds on to anything.
func TestProbes(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "probes", nil)
	c := pod.Start(t, "main", harness.Sleep)
	c.WantOutput(t, "", "true") // what is made once is there now
	shim := shared.AwaitProcess(t, harness.Shim, pod.ID)
	before := len(shim.FDs(t))
	for range full(200, 40) {
		c.WantOutput(t, "", "true")
	}
	harness.Until(t, fmt.Sprintf("the shim is back at %d descriptors", before), func() bool {
		return len(shim.FDs(t)) <= before
	})
	pod.Remove(t)
}

// ownCRI starts a containerd for one test.
func ownCRI(t *testing.T) *harness.CRI {
	t.Helper()
	c, err := harness.StartCRI()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
