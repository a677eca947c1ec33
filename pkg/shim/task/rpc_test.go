package task

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox/sandboxtest"
)

// fixture is the service of a sandbox on a machine in memory.
type fixture struct {
	*Service

	t       *testing.T
	dir     string
	machine *sandboxtest.Machine
	events  *sandboxtest.Recorder
	down    chan struct{} // closed by Shutdown
	counts  calls.Counts
}

// Shutdown, Done, Err and RegisterCallback implement [shutdown.Service].
type down struct{ ch chan struct{} }

func (d down) Shutdown()                                    { close(d.ch) }
func (d down) RegisterCallback(func(context.Context) error) {}
func (d down) Done() <-chan struct{}                        { return d.ch }
func (d down) Err() error                                   { return nil }

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), machine: sandboxtest.NewMachine(), events: sandboxtest.NewRecorder(), down: make(chan struct{})}
	f.Service = New(sandbox.New(sandbox.Options{
		Namespace: "test", ID: "pod", Sink: f.events, Machine: f.machine, KillTimeout: time.Minute,
	}), down{f.down}, &f.counts, nil)
	t.Cleanup(func() {
		if err := f.sandbox.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		sandboxtest.CheckOrder(t, f.events.Events(), true)
	})
	return f
}

// bundle makes a bundle whose process is described by args.
func (f *fixture) bundle(args ...string) string {
	f.t.Helper()
	dir, err := os.MkdirTemp(f.dir, "bundle-")
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := json.Marshal(specs.Spec{Process: &specs.Process{Args: args, Cwd: "/"}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// must ends the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func process(args ...string) *anypb.Any {
	b, err := json.Marshal(specs.Process{Args: args, Cwd: "/"})
	if err != nil {
		panic(err)
	}
	return &anypb.Any{Value: b}
}

// bring makes a container "c" with a registered exec "e", in a state.
func (f *fixture) bring(state string) {
	f.t.Helper()
	ctx := f.t.Context()
	if state == "none" {
		return
	}
	_, err := f.Create(ctx, &taskapi.CreateTaskRequest{ID: "c", Bundle: f.bundle("wait")})
	if err == nil {
		_, err = f.Exec(ctx, &taskapi.ExecProcessRequest{ID: "c", ExecID: "e", Spec: process("wait")})
	}
	if err == nil && state != "created" {
		_, err = f.Start(ctx, &taskapi.StartRequest{ID: "c"})
	}
	switch {
	case err != nil:
	case state == "paused":
		_, err = f.Pause(ctx, &taskapi.PauseRequest{ID: "c"})
	case state == "exited":
		if _, err = f.Kill(ctx, &taskapi.KillRequest{ID: "c", Signal: 9, All: true}); err == nil {
			_, err = f.Wait(ctx, &taskapi.WaitRequest{ID: "c"})
		}
	case state == "deleted":
		if _, err = f.Kill(ctx, &taskapi.KillRequest{ID: "c", Signal: 9}); err == nil {
			_, err = f.Wait(ctx, &taskapi.WaitRequest{ID: "c"})
		}
		if err == nil {
			_, err = f.Delete(ctx, &taskapi.DeleteRequest{ID: "c"})
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// class names an error by its class.
func class(err error) string {
	switch {
	case err == nil:
		return ok
	case errdefs.IsNotFound(err):
		return nf
	case errdefs.IsAlreadyExists(err):
		return ex
	case errdefs.IsFailedPrecondition(err):
		return pre
	case errdefs.IsInvalidArgument(err):
		return inval
	case errdefs.IsNotImplemented(err):
		return impl
	}
	return err.Error()
}

// TestEveryCallInEveryState: what each method answers, by the class of its error.
func TestEveryCallInEveryState(t *testing.T) {
	for _, method := range callTable {
		for i, state := range states {
			t.Run(method.name+"/"+state, func(t *testing.T) {
				f := newFixture(t)
				f.bring(state)
				if got := class(method.call(f, t.Context())); got != method.want[i] {
					t.Errorf("got %s, want %s", got, method.want[i])
				}
			})
		}
	}
}

// TestStateOfAProcess in each state of the container and of an exec.
func TestStateOfAProcess(t *testing.T) {
	for state, want := range map[string]tasktypes.Status{
		"created": tasktypes.Status_CREATED, "running": tasktypes.Status_RUNNING,
		"paused": tasktypes.Status_PAUSED, "exited": tasktypes.Status_STOPPED,
	} {
		f := newFixture(t)
		f.bring(state)
		got := must[*taskapi.StateResponse](t)(f.State(t.Context(), &taskapi.StateRequest{ID: "c"}))
		if got.Status != want || got.Pid == 0 || got.Bundle == "" {
			t.Errorf("%s: %+v", state, got)
		}
		if exited := state == "exited"; exited != (got.ExitedAt != nil) || exited && got.ExitStatus != 137 {
			t.Errorf("%s: exit %d at %v", state, got.ExitStatus, got.ExitedAt)
		}
		exec := must[*taskapi.StateResponse](t)(f.State(t.Context(), &taskapi.StateRequest{ID: "c", ExecID: "e"}))
		if exec.Status != tasktypes.Status_CREATED || exec.ExecID != "e" {
			t.Errorf("%s: exec %+v", state, exec)
		}
	}
}

// TestExitOfAnExec: Wait, State and Delete say the same.
func TestExitOfAnExec(t *testing.T) {
	f := newFixture(t)
	f.bring("running")
	ctx := t.Context()
	if _, err := f.Exec(ctx, &taskapi.ExecProcessRequest{ID: "c", ExecID: "x", Spec: process("exit", "5")}); err != nil {
		t.Fatal(err)
	}
	started := must[*taskapi.StartResponse](t)(f.Start(ctx, &taskapi.StartRequest{ID: "c", ExecID: "x"}))
	wait := must[*taskapi.WaitResponse](t)(f.Wait(ctx, &taskapi.WaitRequest{ID: "c", ExecID: "x"}))
	state := must[*taskapi.StateResponse](t)(f.State(ctx, &taskapi.StateRequest{ID: "c", ExecID: "x"}))
	deleted := must[*taskapi.DeleteResponse](t)(f.Delete(ctx, &taskapi.DeleteRequest{ID: "c", ExecID: "x"}))
	if wait.ExitStatus != 5 || state.ExitStatus != 5 || deleted.ExitStatus != 5 || deleted.Pid != started.Pid {
		t.Errorf("wait %v, state %v, delete %v", wait, state, deleted)
	}
}

// TestShutdown ends the process when no container is left, and not before.
func TestShutdown(t *testing.T) {
	f := newFixture(t)
	f.bring("exited")
	for _, last := range []bool{false, true} {
		if last {
			must[*taskapi.DeleteResponse](t)(f.Delete(t.Context(), &taskapi.DeleteRequest{ID: "c"}))
		}
		if _, err := f.Shutdown(t.Context(), &taskapi.ShutdownRequest{ID: "c"}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-f.down:
			if !last {
				t.Fatal("the shim ends with a container left")
			}
		default:
			if last {
				t.Fatal("the shim does not end")
			}
		}
	}
	if !f.machine.Released() {
		t.Error("the machine was not released")
	}
}

// TestOrphan: a client that has gone when its call is done leaves no shim behind.
func TestOrphan(t *testing.T) {
	f := newFixture(t)
	f.bring("exited")
	ctx, cancel := context.WithCancel(t.Context())
	f.machine.OnStep = func(context.Context, string) error { return nil }
	cancel()
	if _, err := f.Delete(ctx, &taskapi.DeleteRequest{ID: "c"}); err != nil && !errdefs.IsCanceled(err) {
		t.Errorf("delete: %v", err)
	}
	<-f.down
}
