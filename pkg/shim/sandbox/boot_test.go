package sandbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// onBoot makes the boot of the machine do something.
func onBoot(do func(context.Context) error) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		if name == "boot" {
			return do(ctx)
		}
		return nil
	}
}

// TestBootFails: nothing is left, and whoever comes later gets the same answer.
func TestBootFails(t *testing.T) {
	f := newFixture(t)
	f.machine.OnStep = onBoot(func(context.Context) error { return errors.New("no vmm today") })
	for _, id := range []string{podID, "other"} {
		if _, err := f.tryCreate(id, "wait"); err == nil || !strings.Contains(err.Error(), "no vmm today") {
			t.Errorf("create %s: %v", id, err)
		}
		if f.State() != sandbox.StateStopped || f.Containers() != 0 || !f.machine.Released() {
			t.Errorf("sandbox is %s with %d containers, released %v", f.State(), f.Containers(), f.machine.Released())
		}
	}
	if events := f.events.Events(); len(events) != 0 {
		t.Errorf("events %q", events)
	}
}

// TestConfigurationThatCannotBeUsed reaches the caller of Create, and only that.
func TestConfigurationThatCannotBeUsed(t *testing.T) {
	f := newFixture(t)
	broken := errors.New("no kernel")
	f.with(func(o *sandbox.Options) { o.ConfigErr = broken })
	if _, err := f.tryCreate("c", "wait"); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if f.State() != sandbox.StateNew || len(f.machine.Steps()) != 0 {
		t.Errorf("sandbox is %s, steps %q", f.State(), f.machine.Steps())
	}
}

func TestStopBeforeBoot(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.tryCreate("c", "wait"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
}

// TestStopDuringBoot aborts the boot.
func TestStopDuringBoot(t *testing.T) {
	f := newFixture(t)
	reached := make(chan struct{})
	f.machine.OnStep = onBoot(func(ctx context.Context) error {
		close(reached)
		<-ctx.Done()
		return ctx.Err()
	})
	created := make(chan error, 1)
	bundle := f.bundle(podID, "wait")
	go func() {
		_, err := f.Create(t.Context(), sandbox.CreateRequest{ID: podID, Bundle: bundle})
		created <- err
	}()
	<-reached
	if got := f.State(); got != sandbox.StateBooting {
		t.Errorf("sandbox is %s", got)
	}
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-created; err == nil {
		t.Error("a container of a stopped sandbox was created")
	}
	if f.State() != sandbox.StateStopped || !f.machine.Released() {
		t.Errorf("sandbox is %s, released %v", f.State(), f.machine.Released())
	}
}

// TestStopWhileBootFails: both clean up, and only one does.
func TestStopWhileBootFails(t *testing.T) {
	for range 50 {
		f := newFixture(t)
		f.machine.OnStep = onBoot(func(context.Context) error { return errors.New("no vmm today") })
		bundle := f.bundle("c", "wait")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Create(t.Context(), sandbox.CreateRequest{ID: "c", Bundle: bundle}); err == nil {
				t.Error("created without a vm")
			}
		})
		for range 3 {
			wg.Go(func() {
				if err := f.Stop(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		released := 0
		for _, step := range f.machine.Steps() {
			if step == "release" {
				released++
			}
		}
		if released > 1 {
			t.Errorf("released %d times", released)
		}
	}
}

// TestCallerThatGivesUp does not end the boot.
func TestCallerThatGivesUp(t *testing.T) {
	f := newFixture(t)
	begun, release := make(chan struct{}), make(chan struct{})
	f.machine.OnStep = onBoot(func(context.Context) error { close(begun); <-release; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	created := make(chan error, 1)
	bundle := f.bundle(podID, "wait")
	go func() {
		_, err := f.Create(ctx, sandbox.CreateRequest{ID: podID, Bundle: bundle})
		created <- err
	}()
	<-begun
	cancel()
	if err := <-created; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(release)
	f.run(podID, "wait")
}
