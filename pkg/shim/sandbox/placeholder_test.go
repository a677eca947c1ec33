package sandbox_test

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// TestPIDsEnd with their processes: whoever sees an exit finds no pid.
func TestPIDsEnd(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "/bin/wait")
	f.exec(c, "e", "wait")
	exec, err := c.Process("e")
	if err != nil {
		t.Fatal(err)
	}
	if exec.PID() != 0 {
		t.Errorf("pid %d before the start", exec.PID())
	}
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	if exec.PID() == 0 || exec.PID() == c.PID() {
		t.Errorf("pid %d of an exec in the container with %d", exec.PID(), c.PID())
	}
	if got := f.machine.OnHost()[c.PID()]; got.Name != "wait" || !slices.Equal(got.Args, []string{"/bin/wait"}) {
		t.Errorf("on the host: %+v", got)
	}
	list, err := c.Processes(t.Context())
	want := []sandbox.ProcessInfo{{PID: c.PID()}, {PID: exec.PID(), ExecID: "e"}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("processes %v, want %v (%v)", list, want, err)
	}
	for _, id := range []string{"e", ""} {
		if err := c.Kill(t.Context(), id, 9, false); err != nil {
			t.Fatal(err)
		}
		p, _ := c.Process(id)
		if _, live := f.machine.OnHost()[p.PID()]; live {
			t.Errorf("process %q was killed, and its pid %d is there", id, p.PID())
		}
		f.wait(c, id)
		if _, live := f.machine.OnHost()[p.PID()]; live || p.PID() == 0 {
			t.Errorf("process %q has ended, and its pid %d has not", id, p.PID())
		}
	}
}

// TestSignalToAPID reaches the process in the guest.
func TestSignalToAPID(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "wait")
	f.exec(c, "e", "wait")
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e", ""} {
		p, err := c.Process(id)
		if err != nil {
			t.Fatal(err)
		}
		f.machine.OnHost()[p.PID()].Signal(syscall.SIGKILL)
		if status := f.wait(c, id); status != sandbox.StatusKilled {
			t.Errorf("process %q: status %d", id, status)
		}
	}
}

// TestNoPlaceholder leaves nothing of the container, in the guest neither.
func TestNoPlaceholder(t *testing.T) {
	for _, failing := range []string{"placeholder", "appear"} {
		f := newFixture(t)
		f.create(podID, "wait")
		removed := 0
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method == "RemoveContainer" && call.Container == "c" {
				removed++
			}
			return nil
		})
		boom := errors.New("no more pids")
		f.machine.OnStep = func(_ context.Context, step string) error {
			if step == failing {
				return boom
			}
			return nil
		}
		if _, err := f.tryCreate("c", "wait"); !errors.Is(err, boom) {
			t.Errorf("%s: %v", failing, err)
		}
		f.machine.OnStep = nil
		if removed != 1 || len(f.machine.OnHost()) != 1 {
			t.Errorf("%s: removed %d times from the guest; on the host %v", failing, removed, f.machine.OnHost())
		}
		if _, err := f.tryCreate("c", "wait"); err != nil {
			t.Errorf("%s: the next one: %v", failing, err)
		}
	}
}
