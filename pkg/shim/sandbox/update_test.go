package sandbox_test

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
)

// TestUpdate: what the guest has accepted bounds the host's part, too.
func TestUpdate(t *testing.T) {
	f := newFixture(t)
	c := f.run(podID, "wait")
	if err := c.Update(t.Context(), []byte(`{"cpu": {"quota": 70000}}`)); err != nil {
		t.Fatal(err)
	}
	if cpu := f.machine.CPU(); cpu == nil || cpu.Quota == nil || *cpu.Quota != 70000 {
		t.Errorf("the host's part is %+v", cpu)
	}
	if err := f.run("joined", "wait").Update(t.Context(), []byte(`{"cpu": {"quota": 10000}}`)); err != nil {
		t.Fatal(err)
	}
	if *f.machine.CPU().Quota != 70000 {
		t.Error("the host's part is that of a container that has joined")
	}
	refused := errors.New("not today")
	f.machine.Agent.OnCall(func(call guesttest.Call) error {
		if call.Method == "Update" {
			return refused
		}
		return nil
	})
	if err := c.Update(t.Context(), []byte(`{"cpu": {"quota": 90000}}`)); !errors.Is(err, refused) {
		t.Errorf("the guest refused: %v", err)
	}
	if *f.machine.CPU().Quota != 70000 {
		t.Error("the host's part was changed although the guest refused")
	}
	if err := c.Update(t.Context(), []byte(`{`)); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("not JSON: %v", err)
	}
}
