//go:build e2e

// Package cri_test runs whole pods through containerd's CRI.
package cri_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// shared is the containerd of all tests that do not hurt it.
var shared *harness.CRI

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: needs root: containerd mounts file systems")
		return 1
	}
	var err error
	if shared, err = harness.StartCRI(); err != nil {
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
