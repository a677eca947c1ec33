//go:build e2e && workloads

// Package workloads_test runs programs that people run in containers, from a Debian of
// the project's own, beside runc: both must say the same.
package workloads_test

import (
	"os"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// shared is the containerd of all tests.
var shared *harness.Containerd

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &shared, harness.StartContainerd)) }
