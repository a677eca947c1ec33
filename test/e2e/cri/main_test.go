//go:build e2e

// Package cri_test runs whole pods through containerd's CRI.
package cri_test

import (
	"os"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// shared is the containerd of all tests that do not hurt it.
var shared *harness.CRI

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &shared, harness.StartCRI)) }
