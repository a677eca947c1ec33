package hostproc_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc/hostproctest"
)

func TestKill(t *testing.T) {
	p, reaped := hostproctest.Start(t)
	if !p.Alive() {
		t.Error("a living process is not alive")
	}
	for range 2 { // one that is gone is not an error
		if err := p.Kill(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-reaped
	if p.Alive() {
		t.Error("a killed process is alive")
	}
}

// TestKillLeavesNewOwnerAlone: a later process with the same pid is not ours.
func TestKillLeavesNewOwnerAlone(t *testing.T) {
	p, _ := hostproctest.Start(t)
	stale := p
	stale.Start--
	if stale.Alive() {
		t.Error("another process is taken for ours")
	}
	if err := stale.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if !p.Alive() {
		t.Error("the new owner of the pid was killed")
	}
}

func TestKillEndsWithItsContext(t *testing.T) {
	p, _ := hostproctest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Kill(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
