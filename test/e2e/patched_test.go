//go:build e2e

package e2e_test

import (
	"os"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestPatchedCode: code that one processor changes is what another one runs from then on. QEMU's
// emulation with a thread for each runs what was there, and a kernel that changes its own code ends.
func TestPatchedCode(t *testing.T) {
	dir := t.TempDir()
	builtProgram(t, dir, "patched")
	for _, whose := range []string{"program", "kernel"} {
		t.Run(whose, func(t *testing.T) {
			shared.Watch(t)
			var out harness.Buffer
			task := shared.Running(t, "patched-"+whose, harness.Streams{Stdout: &out, Stderr: os.Stderr}, []string{"/v/patched", whose},
				oci.WithMounts([]specs.Mount{bind(dir, "/v", "ro")}), oci.WithPrivileged, oci.WithCPUCFS(200000, 100000))
			if status := shared.Finish(t, task); status != 0 || out.String() != "" {
				t.Errorf("status %d, output:\n%s", status, out.String())
			}
		})
	}
}
