package sandbox_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox/sandboxtest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // losses are what the tests are about
	goleak.VerifyTestMain(m)
}

// podID is the id of the sandbox and of its sandbox container.
const podID = "pod"

// fixture is a sandbox on a machine in memory.
type fixture struct {
	t       *testing.T
	dir     string
	machine *sandboxtest.Machine
	events  *sandboxtest.Recorder
	opts    sandbox.Options
	*sandbox.Sandbox
}

// newFixture makes a sandbox. When the test ends everything must have been
// released and joined.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), machine: sandboxtest.NewMachine(), events: sandboxtest.NewRecorder()}
	f.opts = sandbox.Options{Namespace: "test", ID: podID, Sink: f.events, Machine: f.machine, KillTimeout: time.Minute}
	f.Sandbox = sandbox.New(f.opts)
	t.Cleanup(f.close)
	return f
}

// with makes the sandbox with other options.
func (f *fixture) with(change func(*sandbox.Options)) {
	change(&f.opts)
	f.Sandbox = sandbox.New(f.opts)
}

// close ends the sandbox and looks at what is left of it.
func (f *fixture) close() {
	f.t.Helper()
	booted := f.machine.PID() != 0
	if err := f.Stop(context.Background()); err != nil {
		f.t.Error(err)
	}
	if booted && !f.machine.Released() {
		f.t.Error("the machine was not released")
	}
	sandboxtest.CheckOrder(f.t, f.events.Events(), true)
}

// bundle makes the bundle of a container whose process is described by args.
func (f *fixture) bundle(id string, args ...string) string {
	f.t.Helper()
	return f.bundleOf(id, &specs.Spec{Process: &specs.Process{Args: args, Cwd: "/"}})
}

// bundleOf makes the bundle of a container from the parts that matter. It is one of a
// pod unless it has annotations, which may be empty.
func (f *fixture) bundleOf(id string, spec *specs.Spec) string {
	f.t.Helper()
	dir := filepath.Join(f.dir, "bundle-"+id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	described := *spec
	if described.Annotations == nil {
		described.Annotations = map[string]string{"io.kubernetes.cri.sandbox-id": podID}
	}
	b, err := json.Marshal(described)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// tryCreate creates a container.
func (f *fixture) tryCreate(id string, args ...string) (*sandbox.Container, error) {
	f.t.Helper()
	return f.Create(f.t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundle(id, args...)})
}

func (f *fixture) create(id string, args ...string) *sandbox.Container {
	f.t.Helper()
	c, err := f.tryCreate(id, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// run creates a container and starts it.
func (f *fixture) run(id string, args ...string) *sandbox.Container {
	f.t.Helper()
	c := f.create(id, args...)
	if err := c.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// exec registers a process.
func (f *fixture) exec(c *sandbox.Container, id string, args ...string) {
	f.t.Helper()
	b, err := json.Marshal(specs.Process{Args: args, Cwd: "/"})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := c.Exec(id, stdio.Config{}, b); err != nil {
		f.t.Fatal(err)
	}
}

// wait waits for a process and returns its status.
func (f *fixture) wait(c *sandbox.Container, execID string) uint32 {
	f.t.Helper()
	p, err := c.Process(execID)
	if err == nil {
		err = p.Wait(f.t.Context())
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Exit().Status
}
