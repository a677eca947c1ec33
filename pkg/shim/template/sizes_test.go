package template

import (
	"errors"
	"math"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
)

// TestSizes: a VM goes on from the largest template that is not larger.
func TestSizes(t *testing.T) {
	sizes := Sizes{
		Templates: []hypervisor.Size{{CPUs: 1, MemoryMiB: 192}, {CPUs: 1, MemoryMiB: 512}, {CPUs: 2, MemoryMiB: 192}, {CPUs: 2, MemoryMiB: 512}},
		Max:       hypervisor.Size{CPUs: 8, MemoryMiB: 4096},
	}
	for pod, want := range map[hypervisor.Size]hypervisor.Size{
		{CPUs: 1, MemoryMiB: 192}:  {CPUs: 1, MemoryMiB: 192},
		{CPUs: 1, MemoryMiB: 511}:  {CPUs: 1, MemoryMiB: 192},
		{CPUs: 1, MemoryMiB: 512}:  {CPUs: 1, MemoryMiB: 512},
		{CPUs: 8, MemoryMiB: 500}:  {CPUs: 2, MemoryMiB: 192},
		{CPUs: 3, MemoryMiB: 4096}: {CPUs: 2, MemoryMiB: 512},
		{CPUs: 9, MemoryMiB: 600}:  {CPUs: 9, MemoryMiB: 512}, // more than one can become
		{CPUs: 3, MemoryMiB: 4097}: {CPUs: 2, MemoryMiB: 4097},
		{CPUs: 1, MemoryMiB: 100}:  {CPUs: 1, MemoryMiB: 100},
	} {
		got := VM{Spec: hypervisor.Spec{Size: pod}, Sizes: sizes}.template()
		most := hypervisor.Size{CPUs: max(pod.CPUs, 8), MemoryMiB: max(pod.MemoryMiB, 4096)}
		if pod.MemoryMiB < 192 {
			most = hypervisor.Size{}
		}
		if got.Size != want || got.Max != most {
			t.Errorf("%+v: %+v, at most %+v, want %+v", pod, got.Size, got.Max, want)
		}
	}
}

// TestResized: a VM that is larger than the template gets the rest. Where it does not, it boots
// with its size, those after it as well, and the template stays for others.
func TestResized(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	usual := testVM(d)
	usual.Sizes = Sizes{Templates: []hypervisor.Size{usual.Spec.Size}, Max: hypervisor.Size{CPUs: 4, MemoryMiB: 256}}
	tpl := made(t, s, usual)
	restored := 0
	d.restoring = func(spec hypervisor.Spec) error {
		restored++
		if spec.Size != usual.Spec.Size || spec.Max != usual.Sizes.Max {
			t.Errorf("restored with %+v, at most %+v", spec.Size, spec.Max)
		}
		return nil
	}
	large := usual
	large.Spec.Size = hypervisor.Size{CPUs: 3, MemoryMiB: 200}
	acquire := func(vm VM) (grown hypervisor.Size, spec hypervisor.Spec, refuse func(error)) {
		t.Helper()
		running, refuse, err := (&Source{Store: s, VM: vm}).Acquire(t.Context(), vm.Spec, math.MaxInt)
		if err != nil {
			t.Fatal(err)
		}
		grown, spec = d.Last().Grown(), d.Last().Spec
		if err := running.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		return grown, spec, refuse
	}
	grown, _, refuse := acquire(large)
	if want := (hypervisor.Size{CPUs: 2, MemoryMiB: 200 - 64}); grown != want || refuse == nil || restored != 1 {
		t.Errorf("it has %+v more, want %+v", grown, want)
	}
	wantBoot := func(restores int) {
		t.Helper()
		grown, spec, refuse := acquire(large)
		if grown != (hypervisor.Size{}) || spec.Size != large.Spec.Size || refuse != nil || restored != restores {
			t.Errorf("one that does not become larger: %+v and %+v, restored %d times", spec.Size, grown, restored)
		}
		if _, err := s.Open(tpl.Key); err != nil {
			t.Error(err)
		}
	}
	refuse(errors.Join(hypervisor.ErrNotResized, errors.New("the guest sees nothing"))) // as the pod's machine does
	wantBoot(1)
	made(t, s, usual) // as an operator does
	d.Errs = map[fake.Step]error{fake.Resize: errors.New("qemu says no")}
	wantBoot(2)
	wantBoot(2)
	if _, _, refuse := acquire(usual); refuse == nil || restored != 3 {
		t.Error("those of the template's size boot")
	}
}
