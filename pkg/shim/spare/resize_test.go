package spare

import (
	"errors"
	"math"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// TestAcquireNotLarger: where a spare VM does not become as large as it is to be, those that are larger
// boot for a while, and those of its size do not.
func TestAcquireNotLarger(t *testing.T) {
	for name, byQEMU := range map[string]bool{"the VMM refuses": true, "the guest refuses": false} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t)
			p, s := source(t, d)
			usual := s.VM.Spec.Size
			s.VM.Sizes = template.Sizes{Templates: []hypervisor.Size{usual}, Max: hypervisor.Size{CPUs: 1, MemoryMiB: 256}}
			fill(t, p, s, 1)
			k := key(t, s)
			large := *s
			large.VM.Spec.MemoryMiB = 200
			if large.Boots(k) {
				t.Fatal("larger ones boot before one was tried")
			}
			if byQEMU {
				d.Errs = map[fake.Step]error{fake.Resize: errors.New("qemu says no")}
			}
			with := &Source{Template: &large, Pool: p, Claimed: p.Claim(k)}
			spec := large.VM.Spec
			spec.Dir = t.TempDir()
			vm, refuse, err := with.Acquire(t.Context(), spec, math.MaxInt)
			if err != nil || (refuse == nil) != byQEMU {
				t.Fatalf("%v; it boots: %v", err, refuse == nil)
			}
			if refuse != nil { // as the pod's machine does
				refuse(errors.Join(hypervisor.ErrNotResized, errors.New("the guest sees nothing")))
			}
			if !large.Boots(k) || s.Boots(k) {
				t.Errorf("larger ones boot: %v, others: %v", large.Boots(k), s.Boots(k))
			}
			if _, err := s.Store.Open(k); err != nil {
				t.Errorf("the template is gone: %v", err)
			}
			if err := vm.Kill(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
