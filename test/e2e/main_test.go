//go:build e2e

// Package e2e_test holds the product to its promises on a real containerd and
// real VMs.
package e2e_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// shared is the containerd of all tests that do not hurt it. Starting one and
// importing the image takes as long as a VM.
var shared *harness.Containerd

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: needs root: containerd mounts file systems")
		return 1
	}
	var err error
	if shared, err = harness.StartContainerd(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if err := shared.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}
