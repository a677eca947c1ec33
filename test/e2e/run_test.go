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
		want   harness.Result
	}{
		{name: "exit0", script: "echo out; echo err >&2", want: harness.Result{Stdout: "out\n", Stderr: "err\n"}},
		{name: "exit1", script: "exit 1", want: harness.Result{Code: 1}},
		{name: "exit42", script: "echo last words; exit 42", want: harness.Result{Stdout: "last words\n", Code: 42}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shared.Watch(t)
			got := shared.Ctr(t, "run", "--rm", harness.ImageName, test.name, "/bin/sh", "-c", test.script)
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestMissingBinary wants an error that names the program. As with runc the
// container is not even created; nothing may be left of it.
func TestMissingBinary(t *testing.T) {
	shared.Watch(t)
	got := shared.Ctr(t, "run", "--rm", harness.ImageName, "missing", "/bin/no-such-program")
	if got.Code == 0 || !strings.Contains(got.Stderr, "/bin/no-such-program") {
		t.Errorf("got %+v, want an error that names the program", got)
	}
}
