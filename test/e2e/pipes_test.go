//go:build e2e

package e2e_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestNoPipes: who looks for the streams of processes that a shim has left open counts
// its pipes; a sandbox has none of its own, also after an exec that has failed.
func TestNoPipes(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"})
		exec, err := shared.AddExec(task, "missing", harness.Streams{}, &specs.Process{Args: []string{"/no/program"}, Cwd: "/"})
		if err != nil {
			t.Fatal(err)
		}
		if err := exec.Start(shared.Context()); err == nil {
			t.Error("a program that does not exist was started")
		}
		inherited := harness.Process{PID: os.Getpid()}.FDs(t) // by all that the test starts
		for _, fd := range shared.AwaitProcess(t, "containerd-shim", id).FDs(t) {
			if strings.HasPrefix(fd, "pipe:") && !slices.Contains(inherited, fd) {
				t.Errorf("the shim has %s", fd)
			}
		}
		if _, err := exec.Delete(shared.Context()); err != nil {
			t.Error(err)
		}
		shared.KillTask(t, task)
	})
}
