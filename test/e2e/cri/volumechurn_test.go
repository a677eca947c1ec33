//go:build e2e

package cri_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestVolumeChurn kills containers that read a volume, and takes the volume away
// at once: what the guest's kernel still reads from the host must not be in the
// way when the guest unmounts it.
func TestVolumeChurn(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "churn", nil)
	dir := t.TempDir()
	tmpfs(t, dir, "size=32m")
	for i := range 16 {
		write(t, dir, fmt.Sprint("sub/f", i), strings.Repeat("text", 1<<18))
	}
	readers := "for i in 1 2 3 4; do while :; do cat /vol/sub/* >/dev/null; done & done; wait"
	rounds := 5
	if os.Getenv("CCV2_FULL") != "" {
		rounds = 100
	}
	for i := range rounds {
		c := pod.StartWith(t, fmt.Sprint("holds", i), readers,
			mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/vol"}))
		c.WantContains(t, "f9", "ls", "/vol/sub")
		c.Remove(t)
	}
	pod.Start(t, "after", harness.Sleep).WantOutput(t, "ok", "echo", "ok")
	pod.Remove(t)
}
