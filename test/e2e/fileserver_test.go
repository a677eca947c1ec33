//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestDistributionsFileServer runs a container with a volume on the virtiofsd of the
// distribution, which is what hosts without the one of ccv2 have.
func TestDistributionsFileServer(t *testing.T) {
	shared.Watch(t)
	shared.Configure(t, func(s *harness.Settings) { s.VirtioFSD = harness.DistributionVirtioFSD() })
	dir := t.TempDir()
	var out harness.Buffer
	task := shared.Running(t, "distribution", harness.Streams{Stdout: &out, Stderr: os.Stderr},
		[]string{"sh", "-c", "echo in > /v/file && cat /v/file && echo root > /file && cat /file"}, oci.WithMounts([]specs.Mount{bind(dir, "/v")}))
	if status := shared.Finish(t, task); status != 0 || out.String() != "in\nroot\n" {
		t.Errorf("status %d, output %q", status, out.String())
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "in\n" {
		t.Errorf("on the host: %q, %v", text, err)
	}
}
