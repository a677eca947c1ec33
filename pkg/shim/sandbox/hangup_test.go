package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// readers are a client that reads the output of a process to its end, and deletes
// the process only then.
type readers struct {
	stdio.Config
	outputs []*os.File
}

func (f *fixture) readers(terminal bool) *readers {
	f.t.Helper()
	dir, err := os.MkdirTemp(f.dir, "fifos-")
	if err != nil {
		f.t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	r := &readers{Config: stdio.Config{Stdin: path("0"), Stdout: path("1"), Stderr: path("2"), Terminal: terminal}}
	for _, name := range []string{r.Stdin, r.Stdout, r.Stderr} {
		if err := unix.Mkfifo(name, 0o600); err != nil {
			f.t.Fatal(err)
		}
		if name == r.Stdin {
			continue
		}
		output, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { _ = output.Close() })
		r.outputs = append(r.outputs, output)
	}
	return r
}

// wantEnd wants nobody to have the fifos open any more.
func (r *readers) wantEnd(t *testing.T) {
	t.Helper()
	for _, output := range r.outputs {
		if err := output.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(output); len(b) > 0 || err != nil {
			t.Errorf("read %q, %v, want the end", b, err)
		}
	}
	if w, err := os.OpenFile(r.Stdin, os.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.ENXIO) {
		_ = w.Close()
		t.Errorf("open stdin: %v, want nobody to read it", err)
	}
}

// readExec registers an exec that r reads.
func (f *fixture) readExec(c *sandbox.Container, id string, r *readers, args ...string) {
	f.t.Helper()
	spec, err := json.Marshal(specs.Process{Args: args, Cwd: "/"})
	if err == nil {
		err = c.Exec(id, r.Config, spec)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// readCreate creates a container that r reads.
func (f *fixture) readCreate(id string, r *readers, args ...string) (*sandbox.Container, error) {
	f.t.Helper()
	return f.Create(f.t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundle(id, args...), Stdio: r.Config})
}

// TestNeverStartedHangsUp: a process that was not started has its output ended, and
// its stdin closed, before it is deleted.
func TestNeverStartedHangsUp(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		f := newFixture(t)
		pod := f.run(podID, "wait")
		fails := func(err error) {
			t.Helper()
			if err == nil {
				t.Error("it was started")
			}
		}

		r := f.readers(terminal)
		f.readExec(pod, "missing", r, "missing")
		fails(pod.StartExec(t.Context(), "missing"))
		r.wantEnd(t)

		r = f.readers(terminal)
		f.readExec(pod, "deleted", r, "wait")
		_, err := pod.DeleteExec(t.Context(), "deleted")
		if err != nil {
			t.Error(err)
		}
		r.wantEnd(t)

		r = f.readers(terminal)
		c, err := f.readCreate("unstarted", r, "missing")
		if err != nil {
			t.Fatal(err)
		}
		fails(c.Start(t.Context()))
		r.wantEnd(t)

		r = f.readers(terminal)
		f.readExec(c, "late", r, "wait")
		fails(c.StartExec(t.Context(), "late"))
		r.wantEnd(t)

		r = f.readers(terminal)
		f.machine.Agent.OnCall(func(call guesttest.Call) error {
			if call.Method == "CreateContainer" {
				return errdefs.ErrUnavailable
			}
			return nil
		})
		_, err = f.readCreate("uncreated", r, "wait")
		fails(err)
		r.wantEnd(t)
	}
}

// TestLossHangsUp: so has one whose VM is lost while it is being started.
func TestLossHangsUp(t *testing.T) {
	f := newFixture(t)
	pod := f.run(podID, "wait")
	r := f.readers(false)
	f.readExec(pod, "e", r, "wait")
	f.machine.Agent.Hang("Exec")
	started := make(chan error, 1)
	go func() { started <- pod.StartExec(t.Context(), "e") }()
	if err := f.machine.Agent.WaitCall(t.Context(), "Exec pod/e"); err != nil {
		t.Fatal(err)
	}
	f.machine.Lose()
	if err := <-started; err == nil {
		t.Error("it was started")
	}
	r.wantEnd(t)
}

// TestStartFailsBesideAnExec: what was started in the container before ends with it,
// before the start has failed, also when the guest has not heard of that.
func TestStartFailsBesideAnExec(t *testing.T) {
	f := newFixture(t)
	c := f.create("c", "wait")
	f.exec(c, "e", "wait")
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	f.machine.OnStep = func(_ context.Context, step string) error {
		if step == "refresh network" {
			return errdefs.ErrUnavailable
		}
		return nil
	}
	if err := c.Start(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("start: %v", err)
	}
	if _, err := c.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	want := []string{"created c", "added c/e", "started c/e", "exited c/e 137", "deleted c"}
	if diff := cmp.Diff(want, f.events.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
