package hostproctest

import (
	"os/exec"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// Start starts a process that lives until it is killed, or the test ends. It is
// reaped in the background, as by the init of a host; reaped is closed then.
func Start(t testing.TB) (p hostproc.Process, reaped <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "1000") //nolint:noctx // the cleanup ends it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := hostproc.Of("sleep", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return p, ended
}
