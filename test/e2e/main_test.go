//go:build e2e

// Package e2e_test holds the product to its promises on a real containerd and
// real VMs.
package e2e_test

import (
	"os"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// shared is the containerd of all tests that do not hurt it. Starting one and
// importing the image takes as long as a VM.
var shared *harness.Containerd

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &shared, harness.StartContainerd)) }
