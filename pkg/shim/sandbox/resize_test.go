package sandbox_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// terminal is the stdio of a process that has one.
var terminal = stdio.Config{Terminal: true}

// createTTY creates a container whose init process has a terminal.
func (f *fixture) createTTY(id string) *sandbox.Container {
	f.t.Helper()
	c, err := f.Create(f.t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundle(id, "wait"), Stdio: terminal})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// execTTY registers a process whose specification has a size, and returns it.
func (f *fixture) execTTY(c *sandbox.Container, id string) *sandbox.Process {
	f.t.Helper()
	spec, err := json.Marshal(specs.Process{Args: []string{"wait"}, Cwd: "/", Terminal: true, ConsoleSize: &specs.Box{Height: 24, Width: 80}})
	if err == nil {
		err = c.Exec(id, terminal, spec)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := c.Process(id)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// resize sets a size.
func (f *fixture) resize(p *sandbox.Process, rows, columns uint32) {
	f.t.Helper()
	if err := p.Resize(f.t.Context(), rows, columns); err != nil {
		f.t.Errorf("resize: %v", err)
	}
}

// wantSize wants the terminal of a process of the sandbox container to have a size.
func (f *fixture) wantSize(execID string, rows, columns int) {
	f.t.Helper()
	if r, c := f.machine.Agent.Process(f.t.Context(), podID, execID).Size(); r != rows || c != columns {
		f.t.Errorf("terminal of %q is %dx%d, want %dx%d", execID, r, c, rows, columns)
	}
}

// TestResizeBeforeStart: the last size is that of the terminal, also before what
// the specification says.
func TestResizeBeforeStart(t *testing.T) {
	f := newFixture(t)
	c := f.createTTY(podID)
	init, err := c.Process("")
	if err != nil {
		t.Fatal(err)
	}
	f.resize(init, 30, 90)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantSize("", 30, 90)

	f.execTTY(c, "spec")
	e := f.execTTY(c, "e")
	f.resize(e, 40, 100)
	f.resize(e, 41, 101)
	f.resize(e, 0, 0)
	for _, id := range []string{"spec", "e"} {
		if err := c.StartExec(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	f.wantSize("spec", 24, 80)
	f.wantSize("e", 41, 101)
	f.resize(e, 50, 110)
	f.wantSize("e", 50, 110)
}

// TestResizeWhileStarting: the guest has not answered yet.
func TestResizeWhileStarting(t *testing.T) {
	f := newFixture(t)
	c := f.run(podID, "wait")
	e := f.execTTY(c, "e")
	release := f.machine.Agent.Hang("Exec")
	started := make(chan error, 1)
	go func() { started <- c.StartExec(t.Context(), "e") }()
	if err := f.machine.Agent.WaitCall(t.Context(), "Exec pod/e"); err != nil {
		t.Fatal(err)
	}
	f.resize(e, 41, 101)
	if slices.Contains(f.machine.Agent.Calls(), "Resize") {
		t.Error("the guest was asked to resize a process that it does not know")
	}
	release()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	f.wantSize("e", 41, 101)
}

// TestResizeOfOthers answers as runc's shim does.
func TestResizeOfOthers(t *testing.T) {
	f := newFixture(t)
	c := f.run(podID, "wait")
	f.exec(c, "pipes", "wait")
	f.execTTY(c, "ended")
	for _, id := range []string{"pipes", "ended"} {
		p, err := c.Process(id)
		if err != nil {
			t.Fatal(err)
		}
		f.resize(p, 40, 100)
		if err := c.StartExec(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		f.resize(p, 40, 100)
		f.machine.Agent.Process(t.Context(), podID, id).Exit(0)
		f.wait(c, id)
		if err := p.Resize(t.Context(), 40, 100); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s has ended: %v", id, err)
		}
	}
	init, err := c.Process("")
	if err != nil {
		t.Fatal(err)
	}
	f.resize(init, 40, 100) // has no terminal
	other := f.createTTY("other")
	f.machine.Agent.Process(t.Context(), podID, "").Exit(0)
	f.wait(c, "")
	f.resize(init, 40, 100)
	if err := other.Kill(t.Context(), "", 9, true); err != nil {
		t.Fatal(err)
	}
	f.wait(other, "")
	if init, err = other.Process(""); err != nil {
		t.Fatal(err)
	}
	f.resize(init, 40, 100)
}
