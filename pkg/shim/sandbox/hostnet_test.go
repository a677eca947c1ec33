package sandbox

import (
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestHostNetworkAsNone boots a pod of the host's network where the
// configuration says that it gets none.
func TestHostNetworkAsNone(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	f.opts.VM.HostNetwork = true
	if err := f.EnsureReady(t.Context(), Pod{Network: PodNetwork{Host: true}}); err != nil {
		t.Fatal(err)
	}
	if f.network != nil {
		t.Error("the guest has a network")
	}
}
