package sandbox_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// TestVMLost in each phase of a container: everybody who waits gets an answer,
// what was announced exits with a status that is not 0, and everything is
// released.
func TestVMLost(t *testing.T) {
	for _, tt := range []struct {
		phase string
		call  string // the call during which the VM is lost
		exits []string
	}{
		{phase: "created", exits: []string{"exited c 255"}},
		{phase: "running", exits: []string{"exited c 255"}},
		{phase: "paused", exits: []string{"exited c 255"}},
		{phase: "exec running", exits: []string{"exited c/e 255", "exited c 255"}},
		{phase: "creating", call: "CreateContainer"},
		{phase: "starting", call: "StartContainer"},
		{phase: "pausing", call: "Pause", exits: []string{"exited c 255"}},
		{phase: "exec starting", call: "Exec", exits: []string{"exited c 255"}},
		{phase: "killing", call: "Signal", exits: []string{"exited c 255"}},
	} {
		t.Run(tt.phase, func(t *testing.T) {
			f := newFixture(t)
			f.machine.Agent.OnCall(func(call guesttest.Call) error {
				if call.Method == tt.call {
					f.machine.Lose()
				}
				return nil
			})
			c, err := f.tryCreate("c", "wait")
			if tt.phase == "creating" {
				if err == nil {
					t.Error("created")
				}
				<-f.Released()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.proceed(c, tt.phase)
			f.machine.Lose()
			if status := f.wait(c, ""); status == 0 {
				t.Error("ended with 0")
			}
			<-f.Released()
			if err := c.Kill(t.Context(), "", 9, true); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("kill: %v", err)
			}
			if _, err := f.tryCreate("late", "wait"); !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("create: %v", err)
			}
			if exit, err := c.Delete(t.Context()); err != nil || exit.Status == 0 {
				t.Errorf("delete: %+v, %v", exit, err)
			}
			if exits := f.exits(); !slices.Equal(exits, tt.exits) {
				t.Errorf("exits %q, want %q", exits, tt.exits)
			}
		})
	}
}

// exits returns the events of that kind so far.
func (f *fixture) exits() []string {
	var exits []string
	for _, e := range f.events.Events() {
		if strings.HasPrefix(e, "exited ") {
			exits = append(exits, e)
		}
	}
	return exits
}

// proceed brings a created container into a phase; what fails there fails
// because the VM is lost.
func (f *fixture) proceed(c *sandbox.Container, phase string) {
	f.t.Helper()
	if phase == "created" {
		return
	}
	err := c.Start(f.t.Context())
	switch phase {
	case "starting":
		if err == nil {
			f.t.Error("started")
		}
		return
	case "paused", "pausing":
		err = c.Pause(f.t.Context())
	case "exec running", "exec starting":
		f.exec(c, "e", "wait")
		err = c.StartExec(f.t.Context(), "e")
	case "killing":
		err = c.Kill(f.t.Context(), "", 15, false)
	}
	if gone := phase == "pausing" || phase == "exec starting" || phase == "killing"; gone != (err != nil) {
		f.t.Errorf("%s: %v", phase, err)
	}
}

// lostInCleanUp loses the VM in a call of the guest after which a container's
// files are closed: the machine is released after them, not at the same time.
func lostInCleanUp(t *testing.T, method string, use func(f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method == method {
				f.machine.Lose()
			}
			return nil
		})
		f.machine.OnStep = func(_ context.Context, step string) error {
			if step == "close files c" {
				<-time.After(time.Second)
				if f.machine.Released() {
					t.Error("the machine was released before the container's files")
				}
			}
			return nil
		}
		use(f)
		<-f.Released()
	})
}

func TestVMLostWhileACreateIsUndone(t *testing.T) {
	lostInCleanUp(t, "CreateContainer", func(f *fixture) {
		if _, err := f.tryCreate("c", "wait"); err == nil {
			f.t.Error("created")
		}
	})
}

func TestVMLostWhileAContainerIsRemoved(t *testing.T) {
	lostInCleanUp(t, "RemoveContainer", func(f *fixture) {
		f.run("s", "wait")
		c := f.run("c", "exit", "0")
		f.wait(c, "")
		if _, err := c.Delete(f.t.Context()); err != nil {
			f.t.Error(err)
		}
	})
}

// TestLostToTheHostsMemory: the exit says so, after the event that says so.
func TestLostToTheHostsMemory(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "wait")
	f.machine.LoseToOOM()
	if status := f.wait(c, ""); status != sandbox.StatusKilled {
		t.Errorf("ended with %d", status)
	}
	want := []string{"created c", "started c", "oom c", "exited c 137"}
	if diff := cmp.Diff(want, f.events.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// slowOOM is a sink that takes its time with one kind of event.
type slowOOM struct{ sandbox.Sink }

func (s slowOOM) Publish(e sandbox.Event) {
	if _, ok := e.(sandbox.TaskOOM); ok {
		<-time.After(time.Second)
	}
	s.Sink.Publish(e)
}

// TestLostToTheHostsMemoryInOrder: no exit overtakes the event that says why.
func TestLostToTheHostsMemoryInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.with(func(o *sandbox.Options) { o.Sink = slowOOM{o.Sink} })
		c := f.run("c", "wait")
		f.machine.LoseToOOM()
		f.wait(c, "")
		want := []string{"created c", "started c", "oom c", "exited c 137"}
		if diff := cmp.Diff(want, f.events.Events()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// TestOOM in the guest is reported once, before the exit.
func TestOOM(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "wait")
	for range 3 {
		f.machine.Agent.OOM("c")
	}
	f.machine.Agent.OOM("nothing")
	f.machine.Agent.Process(t.Context(), "c", "").Exit(137)
	f.wait(c, "")
	want := []string{"created c", "started c", "oom c", "exited c 137"}
	if diff := cmp.Diff(want, f.events.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestEarlyExit is that of a process whose output nobody reads.
func TestEarlyExit(t *testing.T) {
	f := newFixture(t)
	c := f.run("c", "wait")
	f.exec(c, "e", "wait")
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	f.machine.Agent.ExitEarly("c", "e", 4)
	f.machine.Agent.ExitEarly("c", "e", 5)
	f.machine.Agent.ExitEarly("c", "unknown", 5)
	if status := f.wait(c, "e"); status != 4 {
		t.Errorf("ended with %d", status)
	}
}

// TestStop reports every process and keeps the containers until they are deleted.
func TestStop(t *testing.T) {
	f := newFixture(t)
	pod, c := f.run(podID, "wait"), f.run("c", "wait")
	created := f.create("d", "wait")
	f.exec(c, "e", "wait")
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, ended := range []*sandbox.Container{pod, c, created} {
		if f.wait(ended, "") == 0 || ended.State() != sandbox.ContainerExited {
			t.Errorf("%s is %s", ended.ID, ended.State())
		}
		if _, err := ended.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if f.Containers() != 0 {
		t.Errorf("%d containers are left", f.Containers())
	}
	if steps := f.machine.Steps(); !slices.Contains(steps, "power off") {
		t.Errorf("the guest's data was not written: %q", steps)
	}
}
