//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestRunAttached is the way of `ctr run --rm`: output, exit codes, clean-up,
// all in one command.
func TestRunAttached(t *testing.T) {
	tests := []struct {
		name   string
		script string
		code   int
		stdout string
		stderr string
	}{
		{name: "Exit0", script: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n"},
		{name: "Exit1", script: "exit 1", code: 1},
		{name: "Exit42", script: "echo last words; exit 42", code: 42, stdout: "last words\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shared.Watch(t)
			got := shared.Ctr(t, "run", "--rm", harness.ImageName, "r-"+strings.ToLower(test.name), "/bin/sh", "-c", test.script)
			want := harness.Result{Stdout: test.stdout, Stderr: test.stderr, Code: test.code}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
