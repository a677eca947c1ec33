package sandbox_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox/sandboxtest"
)

// TestCallerGoes takes the caller of Create away while the guest creates the
// container: it must not be seen meanwhile, and can be created again at once.
func TestCallerGoes(t *testing.T) {
	f := newFixture(t)
	f.run(podID, "wait")
	asked, let := make(chan struct{}), make(chan struct{})
	first := true
	f.machine.Agent.OnCall(func(call guesttest.Call) error {
		if call.Method == "CreateContainer" && first {
			first = false
			close(asked)
			<-let
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	bundle := f.bundle("c", "exit", "5")
	failed := make(chan error, 1)
	go func() {
		_, err := f.Create(ctx, sandbox.CreateRequest{ID: "c", Bundle: bundle})
		failed <- err
	}()
	<-asked
	if _, err := f.tryCreate("c", "exit", "5"); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a second Create: %v", err)
	}
	if _, err := f.Container("c"); err != nil {
		t.Errorf("a container that is being created: %v", err)
	}
	cancel()
	if _, err := f.Container("c"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a container that nobody waits for: %v", err)
	}
	again := make(chan *sandbox.Container, 1)
	go func() { again <- f.create("c", "exit", "5") }()
	close(let)
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v", err)
	}
	c := <-again
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.wait(c, ""); got != 5 {
		t.Errorf("exit status %d, want 5", got)
	}
	if _, err := c.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCallerGoesAtStart takes the caller of Start away while the guest starts the
// container, which therefore runs.
func TestCallerGoesAtStart(t *testing.T) {
	f := newFixture(t)
	c := f.create(podID, "wait")
	ctx, cancel := context.WithCancel(t.Context())
	f.machine.Agent.OnCall(func(call guesttest.Call) error {
		if call.Method == "StartContainer" {
			cancel()
		}
		return nil
	})
	if err := c.Start(ctx); err != nil {
		t.Errorf("Start: %v", err)
	}
	if got := c.State(); got != sandbox.ContainerRunning {
		t.Errorf("the container is %s", got)
	}
}

// deafMachine has a guest that creates containers whether or not the caller waits,
// as an original one does.
type deafMachine struct{ *sandboxtest.Machine }

func (m deafMachine) Guest() client.Guest { return deafGuest{m.Agent} }

type deafGuest struct{ client.Guest }

func (g deafGuest) CreateContainer(ctx context.Context, s client.Session, c client.Container) error {
	return g.Guest.CreateContainer(context.WithoutCancel(ctx), s, c)
}

// TestCallerGoesTooLate: the container is created nevertheless, and a second
// Create that has waited for its end is answered.
func TestCallerGoesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.with(func(o *sandbox.Options) { o.Machine = deafMachine{f.machine} })
		r := sandbox.CreateRequest{ID: "c", Bundle: f.bundle("c", "wait")}
		ctx, cancel := context.WithCancel(t.Context())
		second := make(chan error, 1)
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method == "CreateContainer" {
				cancel()
				go func() {
					_, err := f.Create(t.Context(), r)
					second <- err
				}()
				synctest.Wait()
			}
			return nil
		})
		if _, err := f.Create(ctx, r); err != nil {
			t.Errorf("Create: %v", err)
		}
		if err := <-second; !errors.Is(err, errdefs.ErrAlreadyExists) {
			t.Errorf("a second Create: %v", err)
		}
	})
}
