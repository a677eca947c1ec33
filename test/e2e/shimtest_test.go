//go:build e2e

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/shimtest"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestShim runs containerd's conformance tests for shims, which speak to the
// shim without a containerd. What they test beyond this does not apply:
//
//   - HundredLayers hands over a root file system as images to be mounted by the
//     shim, which containerd does itself for shims that do not ask for it.
//   - The network suite needs the way out of a host that is not the pod's.
func TestShim(t *testing.T) {
	h := shimHost(t)
	config := shimtest.Config{ShimBinary: filepath.Join(h.Bin, harness.ShimName)}
	shimtest.NewRunSuite(config).Run(t)
	shimtest.NewExecSuite(config).Run(t)
	shimtest.NewOOMSuite(config).Run(t)
	t.Run("UDSRoundTrip", func(t *testing.T) {
		t.Skip(`mounts of type "uds" are an extension of another shim; runc refuses them too`)
	})
	t.Run("Transfer", func(t *testing.T) {
		t.Skip("the shim has no transfer service; runc's has none either")
	})
}

// TestShimRunc runs the same tests on runc's shim: what passes there must pass
// in a VM. It only runs by name, because it says nothing about the product.
func TestShimRunc(t *testing.T) {
	if f := os.Getenv("CCV2_COMPARE"); f == "" {
		t.Skip("set CCV2_COMPARE to see what passes with runc")
	}
	h := shimHost(t)
	config := shimtest.Config{ShimBinary: filepath.Join(h.Bin, harness.RuncShim)}
	shimtest.NewRunSuite(config).Run(t)
	shimtest.NewExecSuite(config).Run(t)
	shimtest.NewOOMSuite(config).Run(t)
}

// shimHost prepares a Host whose environment the shims of the test inherit.
func shimHost(t testing.TB) *harness.Host {
	t.Helper()
	h, err := harness.NewHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.CheckClean(t)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	bundles := filepath.Join(h.Dir, "b")
	if err := os.Mkdir(bundles, 0o711); err != nil {
		t.Fatal(err)
	}
	// The kit would download the program that its containers run.
	testbin := filepath.Join(h.Dir, "testbin")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", testbin, "github.com/containerd/shimtest/cmd/testbin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build testbin: %v\n%s", err, out)
	}
	t.Setenv("SHIMTEST_TESTBIN", testbin)
	t.Setenv("TMPDIR", bundles) // so that what is left of a bundle is found
	t.Setenv("CCV2_CONFIG", h.ConfigPath())
	t.Setenv("PATH", h.Bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return h
}
