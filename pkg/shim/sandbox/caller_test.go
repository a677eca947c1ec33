package sandbox

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestCallerGoes takes the caller of Create away while the guest makes the
// container: it must not stay in the guest, must not be seen meanwhile, and can
// be created again at once.
func TestCallerGoes(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	f.run(podID, "wait")
	asked, goOn := make(chan struct{}), make(chan struct{})
	first := true
	f.agent.hook = func(code hyperstart.Code) (hyperstart.Code, []byte) {
		if code == hyperstart.NewContainer && first {
			first = false
			close(asked)
			<-goOn
		}
		return 0, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	bundle := f.bundle("c", "exit", "5")
	failed := make(chan error, 1)
	go func() {
		_, err := f.Create(ctx, CreateRequest{ID: "c", Bundle: bundle})
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
	again := make(chan *Container, 1)
	go func() { again <- f.create("c", "exit", "5") }()
	close(goOn)
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
	f := newFixture(t, hyperstart.DialectCCv2)
	c := f.create(podID, "wait")
	ctx, cancel := context.WithCancel(t.Context())
	f.agent.noted = func(code hyperstart.Code) {
		if code == hyperstart.StartContainer {
			cancel()
		}
	}
	if err := c.Start(ctx); err != nil {
		t.Errorf("Start: %v", err)
	}
	if got := c.State(); got != ContainerRunning {
		t.Errorf("the container is %s", got)
	}
}
