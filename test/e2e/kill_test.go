//go:build e2e

package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// sandboxOf makes a container one of the VM of another container.
func sandboxOf(id string) oci.SpecOpts {
	return oci.WithAnnotations(map[string]string{"io.kubernetes.cri.sandbox-id": id})
}

// TestKillThatIsNotAnswered stops a VM and sends SIGKILL to one of its containers,
// which that cannot reach: the shim ends the VM. The container was killed, of the
// other one of the VM nothing is known, and the log says who has ended what.
func TestKillThatIsNotAnswered(t *testing.T) {
	shared.Watch(t)
	shared.Configure(t, func(s *harness.Settings) { s.CallTimeout = "1s" }) // six under emulation
	begin := len(shared.Log())
	first := shared.Running(t, "kill-first", harness.Streams{}, []string{"sleep", "1000"})
	other := shared.Running(t, "kill-other", harness.Streams{}, []string{"sleep", "1000"}, sandboxOf("kill-first"))
	shared.AwaitProcess(t, harness.QEMU, "kill-first").Signal(t, unix.SIGSTOP)
	ctx, cancel := context.WithTimeout(shared.Context(), harness.Patience)
	defer cancel()
	if err := first.Kill(ctx, unix.SIGKILL); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := shared.Finish(t, first); status != 137 {
		t.Errorf("the container that got SIGKILL ended with %d, want 137 as under runc", status)
	}
	if status := shared.Finish(t, other); status != 255 {
		t.Errorf("the other container of the VM ended with %d, want 255", status)
	}
	for _, said := range []string{"the shim has ended the vm: SIGKILL was sent to container kill-first"} {
		if !strings.Contains(shared.Log()[begin:], said) {
			t.Errorf("the log does not say %q", said)
		}
	}
}
