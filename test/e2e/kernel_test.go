//go:build e2e

package e2e_test

import (
	"os"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestKernel: what containers can expect of the guest's kernel, the distribution's or
// our own. What packet filters need is pkg/guest/agent's TestIPTables.
func TestKernel(t *testing.T) {
	dir := t.TempDir()
	for name, arch := range map[string]string{"promises": "amd64", "time32": "386"} {
		builtProgram(t, dir, name, "GOARCH="+arch)
	}
	for _, name := range []string{"promises", "time32"} {
		t.Run(name, func(t *testing.T) {
			shared.Watch(t)
			var out harness.Buffer
			task := shared.Running(t, name, harness.Streams{Stdout: &out, Stderr: os.Stderr}, []string{"/v/" + name},
				oci.WithMounts([]specs.Mount{bind(dir, "/v", "ro")}), oci.WithPrivileged)
			if status := shared.Finish(t, task); status != 0 || out.String() != "" {
				t.Errorf("status %d, lacking:\n%s", status, out.String())
			}
		})
	}
}
