package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// TestKillThatIsNotCarriedOut: a guest that answers SIGKILL, in whatever way,
// and lets the process run on loses its VM.
func TestKillThatIsNotCarriedOut(t *testing.T) {
	for _, answer := range []error{nil, errdefs.ErrNotFound} {
		f := newFixture(t)
		f.with(func(o *sandbox.Options) { o.KillTimeout = 50 * time.Millisecond })
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method == "Signal" {
				return answer
			}
			return nil
		})
		c, other := f.run("c", "deaf"), f.run("other", "wait")
		for range 3 {
			if err := c.Kill(t.Context(), "", 9, true); (err == nil) != (answer == nil) {
				t.Errorf("kill: %v", err)
			}
		}
		f.wantEndedFor(c, other)
	}
}

// wantEndedFor wants the VM to have been ended for a container that got SIGKILL:
// that one was killed, with its execs, and of another one nothing is known.
// Whoever asks later is told why.
func (f *fixture) wantEndedFor(c, other *sandbox.Container) {
	f.t.Helper()
	if status := f.wait(c, ""); status != sandbox.StatusKilled {
		f.t.Errorf("the container that got SIGKILL ended with %d", status)
	}
	if status := f.wait(other, ""); status != sandbox.StatusUnknown {
		f.t.Errorf("another container ended with %d", status)
	}
	<-f.Released()
	_, err := f.tryCreate("late", "wait")
	if err == nil || !strings.Contains(err.Error(), "the shim has ended the vm: SIGKILL was sent to container c, which") {
		f.t.Errorf("create: %v", err)
	}
}

// TestLossAfterSIGKILL: a VM that is lost by itself says nothing of a container
// that got SIGKILL shortly before.
func TestLossAfterSIGKILL(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "deaf")
	f.machine.Agent.OnCall(func(call guesttest.Call) error {
		if call.Method == "Signal" {
			f.machine.Lose()
		}
		return nil
	})
	_ = c.Kill(t.Context(), "", 9, true)
	if status := f.wait(c, ""); status != sandbox.StatusUnknown {
		t.Errorf("ended with %d", status)
	}
	<-f.Released()
}

// TestKillThatIsNotAnswered ends the VM: a guest that does not even take SIGKILL
// is not worth keeping. State answers all the while.
func TestKillThatIsNotAnswered(t *testing.T) {
	f := newFixture(t)
	c, other := f.run("c", "wait"), f.run("other", "wait")
	f.exec(c, "e", "wait")
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	f.machine.Agent.Hang("Signal")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Kill(ctx, "", 9, true) }()
	if c.State() != sandbox.ContainerRunning || f.State() != sandbox.StateReady {
		t.Errorf("%s, %s", c.State(), f.State())
	}
	if err := <-done; err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := f.wait(c, "e"); status != sandbox.StatusKilled {
		t.Errorf("an exec of the container ended with %d", status)
	}
	f.wantEndedFor(c, other)
}

// TestKillWaitsForTheStartOfAnExec: a signal that comes too early would be lost.
func TestKillWaitsForTheStartOfAnExec(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "wait")
	f.exec(c, "e", "wait")
	release := f.machine.Agent.Hang("Exec")
	started, killed := make(chan error, 1), make(chan error, 1)
	go func() { started <- c.StartExec(t.Context(), "e") }()
	if err := f.machine.Agent.WaitCall(t.Context(), "Exec c/e"); err != nil {
		t.Fatal(err)
	}
	go func() { killed <- c.Kill(t.Context(), "e", 9, false) }()
	release()
	if err := <-started; err != nil {
		t.Error(err)
	}
	if err := <-killed; err != nil {
		t.Error(err)
	}
	calls := f.machine.Agent.Calls()
	if slices.Index(calls, "Signal c/e 9") < slices.Index(calls, "Exec c/e") {
		t.Errorf("calls %q", calls)
	}
	if status := f.wait(c, "e"); status != sandbox.StatusKilled {
		t.Errorf("ended with %d", status)
	}
}

func TestPause(t *testing.T) {
	f := newFixture(t)
	for _, c := range []*sandbox.Container{f.run(podID, "wait"), f.run("c", "wait")} {
		if err := c.Resume(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("resume: %v", err)
		}
		for i := range 2 {
			if err := c.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Pause(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) || c.State() != sandbox.ContainerPaused {
				t.Errorf("second pause: %v, %s", err, c.State())
			}
			if f.machine.Paused() != (c.ID == podID) {
				t.Errorf("%s: the VM is paused: %v", c.ID, f.machine.Paused())
			}
			f.exec(c, fmt.Sprint("e", i), "wait")
			if err := c.Resume(t.Context()); err != nil || c.State() != sandbox.ContainerRunning {
				t.Fatal(err)
			}
		}
		// A signal starts the vCPUs, because it must reach its process.
		if c.ID == podID {
			if err := c.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Kill(t.Context(), "", 9, true); err != nil {
			t.Fatal(err)
		}
		if status := f.wait(c, ""); status != sandbox.StatusKilled {
			t.Errorf("ended with %d", status)
		}
	}
}

// TestKillDuringPause: a signal that comes while the vCPUs are being stopped
// starts them again, and the VM stays.
func TestKillDuringPause(t *testing.T) {
	for _, signal := range []int{9, 10} {
		f := newFixture(t)
		c := f.run(podID, "wait")
		pausing, let := make(chan struct{}), make(chan struct{})
		f.machine.OnStep = func(_ context.Context, step string) error {
			if step == "pause" {
				close(pausing)
				<-let
			}
			return nil
		}
		paused, killed := make(chan error, 1), make(chan error, 1)
		go func() { paused <- c.Pause(t.Context()) }()
		<-pausing
		go func() { killed <- c.Kill(t.Context(), "", signal, false) }()
		close(let)
		if err := <-killed; err != nil {
			t.Errorf("kill: %v", err)
		}
		if err := <-paused; err != nil && !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("pause: %v", err)
		}
		if status := f.wait(c, ""); status != uint32(128+signal) {
			t.Errorf("ended with %d", status)
		}
		if f.machine.Paused() || f.State() != sandbox.StateReady || slices.Contains(f.machine.Steps(), "kill") {
			t.Errorf("paused: %v, sandbox %s, steps %q", f.machine.Paused(), f.State(), f.machine.Steps())
		}
	}
}

// TestPauseBeforeTheSignal: the vCPUs are stopped between the check and the
// signal, which is refused, or gets no answer, and is sent again. The VM stays.
func TestPauseBeforeTheSignal(t *testing.T) {
	for _, answer := range []error{errdefs.ErrFailedPrecondition, context.DeadlineExceeded} {
		f := newFixture(t)
		pod, c := f.run(podID, "wait"), f.run("c", "wait")
		first := true
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method != "Signal" || !first {
				return nil
			}
			first = false
			if err := pod.Pause(t.Context()); err != nil {
				t.Error(err)
			}
			return answer
		})
		if err := c.Kill(t.Context(), "", 9, false); err != nil {
			t.Errorf("kill: %v", err)
		}
		if status := f.wait(c, ""); status != sandbox.StatusKilled || f.State() != sandbox.StateReady {
			t.Errorf("ended with %d, sandbox %s", status, f.State())
		}
	}
}

// TestPauseAfterSIGKILL: a process cannot end while the vCPUs are stopped, and
// the VM is not lost for that. It is when they run again.
func TestPauseAfterSIGKILL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		pod, c := f.run(podID, "wait"), f.run("c", "deaf")
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method == "Signal" {
				return errdefs.ErrNotFound // it is not carried out
			}
			return nil
		})
		_ = c.Kill(t.Context(), "", 9, true)
		if err := pod.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		if f.State() != sandbox.StateReady || pod.State() != sandbox.ContainerPaused {
			t.Fatalf("sandbox %s, container %s", f.State(), pod.State())
		}
		if err := pod.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-f.Released()
	})
}

// TestKillWhileTheSandboxContainerExits: the resume that a signal needs succeeds
// for the VM, and not for the container that ends meanwhile.
func TestKillWhileTheSandboxContainerExits(t *testing.T) {
	f := newFixture(t)
	pod, c := f.run(podID, "wait"), f.run("c", "wait")
	if err := pod.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.machine.OnStep = func(ctx context.Context, step string) error {
		if step == "resume" {
			f.machine.Agent.Process(ctx, podID, "").Exit(0)
			f.wait(pod, "")
		}
		return nil
	}
	if err := c.Kill(t.Context(), "", 9, true); err != nil {
		t.Fatalf("kill: %v", err)
	}
	if status := f.wait(c, ""); status != sandbox.StatusKilled {
		t.Errorf("ended with %d", status)
	}
}
