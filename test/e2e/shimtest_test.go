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
// shim without a containerd. What does not apply is skipped by name.
func TestShim(t *testing.T) {
	h := shimHost(t)
	config := shimtest.Config{ShimBinary: filepath.Join(h.Bin, harness.ShimName)}
	shimtest.NewRunSuite(config).Run(t)
	shimtest.NewExecSuite(config).Run(t)
	shimtest.NewOOMSuite(config).Run(t)
	for name, reason := range notApplicable {
		t.Run(name, func(t *testing.T) { t.Skip(reason) })
	}
}

// notApplicable are the tests of the kit that are not run, and why.
var notApplicable = map[string]string{
	"HundredLayers": "the root file system is handed over as images to be mounted by the shim; containerd does that itself for shims that do not ask for it",
	"UDSRoundTrip":  `mounts of type "uds" are an extension of another shim; runc refuses them too`,
	"Transfer":      "the shim has no transfer service; runc's has none either",
	"Network":       "needs a host that can be reached, and names of the internet; TestNetwork tests the network of a pod",
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

// steady keeps the Go runtime of the kit's program from interrupting goroutines
// by SIGURG. Its "forever" ends, with status 0, at the first signal of any kind,
// and a busy emulated CPU is slow enough for the runtime to send itself one. The
// container then ends under the exec that a test is about.
const steady = "-X=runtime.godebugDefault=asyncpreemptoff=1"

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
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", steady, "-o", testbin, "github.com/containerd/shimtest/cmd/testbin")
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
