package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // losses are what the tests are about
	goleak.VerifyTestMain(m)
}

// fixture is a sandbox with everything around it that is not real.
type fixture struct {
	t      *testing.T
	dir    string
	agent  *agent
	driver *driver
	events *recorder
	vm     podvm.Options
	*Sandbox
}

// podID is the id of the sandbox and of its sandbox container.
const podID = "pod"

// newFixture makes a sandbox with a guest of a dialect. When the test ends
// everything must have been released.
func newFixture(t *testing.T, dialect hyperstart.Dialect) *fixture {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir, err := os.MkdirTemp("", "ccv2-sandbox-") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	a := newAgent(t, dialect)
	f := &fixture{t: t, dir: dir, agent: a, driver: &driver{t: t, agent: a}, events: newRecorder()}
	f.vm = podvm.Options{
		Namespace: "test", ID: podID, StateDir: filepath.Join(dir, "run"), Source: podvm.Cold{Driver: f.driver},
		Config: podvm.Config{ShareType: "9p", BootTimeout: 10 * time.Second, CallTimeout: 5 * time.Second},
	}
	if dialect != hyperstart.DialectCCv2 {
		f.vm.Config.Dialect = dialect
	}
	f.Sandbox = f.sandbox()
	t.Cleanup(f.close)
	return f
}

// sandbox makes a sandbox with the present options of its VM.
func (f *fixture) sandbox() *Sandbox {
	return New(Options{
		Namespace: "test", ID: podID, Sink: f.events,
		Machine: OnVM(podvm.New(f.vm)), KillTimeout: f.vm.Config.CallTimeout * 3 / 2,
	})
}

// record is what is on disk.
func (f *fixture) record() store.Dir { return store.DirOf(f.vm.StateDir, "test", podID) }

// close ends the sandbox and looks for what is left of it.
func (f *fixture) close() {
	f.t.Helper()
	if err := f.Stop(context.Background()); err != nil {
		f.t.Error(err)
	}
	if m := f.driver.machine(); m != nil {
		select {
		case <-m.done:
		default:
			f.t.Error("the vm still runs")
			_ = m.Kill(context.Background())
		}
		_ = m.stdin.Close()
	}
	f.agent.wg.Wait()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(f.dir))
	if err != nil {
		f.t.Error(err)
	}
	for _, m := range mounts {
		f.t.Errorf("%s is still mounted", m.Mountpoint)
	}
	if _, err := os.Stat(f.machine.Dir()); !errors.Is(err, os.ErrNotExist) {
		f.t.Errorf("the sandbox's directory is still there: %v", err)
	}
	check(f.t, f.events.list(), true)
	if len(mounts) == 0 {
		_ = os.RemoveAll(f.dir)
	}
}

// bundle makes the bundle of a container whose process is described by args.
func (f *fixture) bundle(id string, args ...string) string {
	f.t.Helper()
	dir := filepath.Join(f.dir, "bundle-"+id)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	spec := specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: args, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}},
	}
	b, err := json.Marshal(spec)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// tryCreate makes a container.
func (f *fixture) tryCreate(id string, args ...string) (*Container, error) {
	f.t.Helper()
	return f.Create(f.t.Context(), CreateRequest{ID: id, Bundle: f.bundle(id, args...)})
}

func (f *fixture) create(id string, args ...string) *Container {
	f.t.Helper()
	c, err := f.tryCreate(id, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// run makes a container and starts it.
func (f *fixture) run(id string, args ...string) *Container {
	f.t.Helper()
	c := f.create(id, args...)
	if err := c.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// exec registers a process.
func (f *fixture) exec(c *Container, id string, args ...string) {
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
func (f *fixture) wait(c *Container, execID string) uint32 {
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
