package spare

import (
	"slices"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestFillWithoutInterface: a guest that cannot set up an interface is as good for a pod that has none, once the device is out.
func TestFillWithoutInterface(t *testing.T) {
	for _, refused := range []hyperstart.Code{hyperstart.SetupInterface, hyperstart.SetupRoute} {
		d := newDriver(t)
		p, s := source(t, d)
		d.guest.Refuse = refused
		if pids := fill(t, p, s, 1); len(pids) != 1 {
			t.Errorf("%d made", len(pids))
		}
		if left := d.Last().Devices(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if calls := d.guest.Calls(); !slices.Contains(calls, hyperstart.WarmUp) {
			t.Errorf("the guest was told %v", calls)
		}
	}
}
