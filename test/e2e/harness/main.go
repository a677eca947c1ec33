//go:build e2e

package harness

import (
	"fmt"
	"io"
	"os"
	"testing"
)

// Main runs the tests of a package on a daemon that they share, and returns
// what the process is to exit with.
func Main[D io.Closer](m *testing.M, shared *D, start func() (D, error)) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: needs root: containerd mounts file systems")
		return 1
	}
	var err error
	if *shared, err = start(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if err := (*shared).Close(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}
