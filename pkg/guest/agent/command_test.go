package agent

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// inState returns a guest whose container c is in a state, and what ends the
// operation that holds it there.
func inState(t *testing.T, state containerState) (*guest, func()) {
	t.Helper()
	g := newGuest(t)
	hold := func(op string, code hyperstart.Code, payload any) func() {
		entered, release := g.runtime.Hold(op)
		done := g.begin(code, payload)
		<-entered
		return func() {
			release()
			t.Log("the operation that was held:", <-done)
		}
	}
	release := func() {}
	switch state {
	case stateCreating:
		release = hold(fake.Create, hyperstart.NewContainer, g.createRequest("c", g.newProc("")))
	case stateCreated:
		g.create("c")
	case stateStarting:
		g.create("c")
		release = hold(fake.Start, hyperstart.StartContainer, ref("c"))
	case stateRunning:
		g.run("c")
	case statePausing:
		g.run("c")
		release = hold(fake.Pause, hyperstart.PauseContainer, ref("c"))
	case statePaused, stateResuming:
		g.run("c")
		g.ok(hyperstart.PauseContainer, ref("c"))
		if state == stateResuming {
			release = hold(fake.Resume, hyperstart.ResumeContainer, ref("c"))
		}
	case stateStopped, stateRemoving:
		p := g.run("c")
		p.fake.Exit(0)
		p.exit()
		if state == stateRemoving {
			release = hold(fake.Delete, hyperstart.RemoveContainer, ref("c"))
		}
	case stateCount:
		t.Fatal("no state")
	}
	if got := g.state(); got != state {
		t.Fatalf("container is %s, want %s", got, state)
	}
	return g, release
}

// TestCommandsInStates runs every command about a container in each of its states.
func TestCommandsInStates(t *testing.T) {
	const (
		ok       = hyperstart.ErrorClass("")
		refused  = hyperstart.ClassFailedPrecondition
		notFound = hyperstart.ClassNotFound
		exists   = hyperstart.ClassAlreadyExists
	)
	signal := hyperstart.SignalProcessRequest{Container: "c", Process: "init", Signal: 0}
	update := hyperstart.UpdateContainerRequest{Container: "c", Resources: json.RawMessage(`{}`)}
	// The columns are the states from creating to removing.
	for _, tt := range []struct {
		code    hyperstart.Code
		payload func(g *guest) any
		want    [stateCount]hyperstart.ErrorClass
	}{
		{hyperstart.NewContainer, func(g *guest) any { return g.createRequest("c", g.newProc("")) }, [stateCount]hyperstart.ErrorClass{exists, exists, exists, exists, exists, exists, exists, exists, exists}},
		{hyperstart.StartContainer, func(*guest) any { return ref("c") }, [stateCount]hyperstart.ErrorClass{refused, ok, refused, refused, refused, refused, refused, refused, refused}},
		{hyperstart.PauseContainer, func(*guest) any { return ref("c") }, [stateCount]hyperstart.ErrorClass{refused, refused, refused, ok, refused, refused, refused, refused, refused}},
		{hyperstart.ResumeContainer, func(*guest) any { return ref("c") }, [stateCount]hyperstart.ErrorClass{refused, refused, refused, refused, refused, ok, refused, refused, refused}},
		{hyperstart.ExecCmd, func(g *guest) any { return g.execRequest("c", g.newProc("e")) }, [stateCount]hyperstart.ErrorClass{refused, ok, refused, ok, refused, refused, refused, refused, refused}},
		{hyperstart.UpdateContainer, func(*guest) any { return update }, [stateCount]hyperstart.ErrorClass{refused, ok, ok, ok, ok, ok, ok, refused, refused}},
		{hyperstart.SignalProcess, func(*guest) any { return signal }, [stateCount]hyperstart.ErrorClass{notFound, ok, ok, ok, ok, ok, ok, notFound, notFound}},
		{hyperstart.KillContainer, func(*guest) any { return killOf("c", 9, false) }, [stateCount]hyperstart.ErrorClass{refused, ok, ok, ok, ok, ok, ok, notFound, notFound}},
		{hyperstart.StatsContainer, func(*guest) any { return ref("c") }, [stateCount]hyperstart.ErrorClass{}},
		{hyperstart.ListProcesses, func(*guest) any { return ref("c") }, [stateCount]hyperstart.ErrorClass{}},
		{hyperstart.RemoveContainer, func(*guest) any { return ref("c") }, [stateCount]hyperstart.ErrorClass{refused, ok, refused, refused, refused, refused, refused, ok, refused}},
	} {
		for state := range stateCount {
			t.Run(tt.code.String()+" "+state.String(), func(t *testing.T) {
				g, release := inState(t, state)
				_, err := g.call(t.Context(), tt.code, tt.payload(g))
				e, classed := errors.AsType[*hyperstart.GuestError](err)
				switch want := tt.want[state]; {
				case want == ok && err != nil, want != ok && (!classed || e.Class != want):
					t.Errorf("got %v, want class %q", err, want)
				}
				release()
			})
		}
	}
}
