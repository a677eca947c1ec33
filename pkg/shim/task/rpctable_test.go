package task

import (
	"context"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Classes of errors, as the table names them.
const (
	ok    = "ok"
	nf    = "notfound"
	pre   = "precondition"
	ex    = "exists"
	inval = "invalid"
	impl  = "notimplemented"
)

// states are the columns of the table below.
var states = []string{"none", "created", "running", "paused", "exited", "deleted"}

// callTable has the methods of the service, and what each answers about the
// container "c" and its registered exec "e" in each of the states.
var callTable = []struct {
	name string
	call func(*fixture, context.Context) error
	want [6]string
}{
	{"create", func(f *fixture, c context.Context) error {
		_, err := f.Create(c, &taskapi.CreateTaskRequest{ID: "c", Bundle: f.bundle("wait")})
		return err
	}, [6]string{ok, ex, ex, ex, ex, ok}},
	{"create from a checkpoint", func(f *fixture, c context.Context) error {
		_, err := f.Create(c, &taskapi.CreateTaskRequest{ID: "d", Bundle: f.bundle("wait"), Checkpoint: "/x"})
		return err
	}, [6]string{impl, impl, impl, impl, impl, impl}},
	{"start", func(f *fixture, c context.Context) error {
		_, err := f.Start(c, &taskapi.StartRequest{ID: "c"})
		return err
	}, [6]string{nf, ok, pre, pre, pre, nf}},
	{"start exec", func(f *fixture, c context.Context) error {
		_, err := f.Start(c, &taskapi.StartRequest{ID: "c", ExecID: "e"})
		return err
	}, [6]string{nf, ok, ok, pre, pre, nf}},
	{"start unknown exec", func(f *fixture, c context.Context) error {
		_, err := f.Start(c, &taskapi.StartRequest{ID: "c", ExecID: "x"})
		return err
	}, [6]string{nf, nf, nf, nf, nf, nf}},
	{"delete", func(f *fixture, c context.Context) error {
		_, err := f.Delete(c, &taskapi.DeleteRequest{ID: "c"})
		return err
	}, [6]string{nf, ok, pre, pre, ok, nf}},
	{"delete exec", func(f *fixture, c context.Context) error {
		_, err := f.Delete(c, &taskapi.DeleteRequest{ID: "c", ExecID: "e"})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"exec again", func(f *fixture, c context.Context) error {
		_, err := f.Exec(c, &taskapi.ExecProcessRequest{ID: "c", ExecID: "e", Spec: process("x")})
		return err
	}, [6]string{nf, ex, ex, ex, ex, nf}},
	{"exec of nothing", func(f *fixture, c context.Context) error {
		_, err := f.Exec(c, &taskapi.ExecProcessRequest{ID: "c", ExecID: "new", Spec: process()})
		return err
	}, [6]string{nf, inval, inval, inval, inval, nf}},
	{"resize", func(f *fixture, c context.Context) error {
		_, err := f.ResizePty(c, &taskapi.ResizePtyRequest{ID: "c", Width: 80, Height: 24})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}}, // it has no terminal: as with runc's shim
	{"close stdin", func(f *fixture, c context.Context) error {
		_, err := f.CloseIO(c, &taskapi.CloseIORequest{ID: "c", Stdin: true})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"state", func(f *fixture, c context.Context) error {
		_, err := f.State(c, &taskapi.StateRequest{ID: "c"})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"pause", func(f *fixture, c context.Context) error {
		_, err := f.Pause(c, &taskapi.PauseRequest{ID: "c"})
		return err
	}, [6]string{nf, pre, ok, pre, pre, nf}},
	{"resume", func(f *fixture, c context.Context) error {
		_, err := f.Resume(c, &taskapi.ResumeRequest{ID: "c"})
		return err
	}, [6]string{nf, pre, pre, ok, pre, nf}},
	{"kill", func(f *fixture, c context.Context) error {
		_, err := f.Kill(c, &taskapi.KillRequest{ID: "c", Signal: 15})
		return err
	}, [6]string{nf, ok, ok, ok, nf, nf}},
	{"kill all and one", func(f *fixture, c context.Context) error {
		_, err := f.Kill(c, &taskapi.KillRequest{ID: "c", ExecID: "e", Signal: 15, All: true})
		return err
	}, [6]string{nf, pre, pre, pre, pre, nf}},
	{"kill an exec that was not started", func(f *fixture, c context.Context) error {
		_, err := f.Kill(c, &taskapi.KillRequest{ID: "c", ExecID: "e", Signal: 15})
		return err
	}, [6]string{nf, pre, pre, pre, pre, nf}},
	{"pids", func(f *fixture, c context.Context) error {
		_, err := f.Pids(c, &taskapi.PidsRequest{ID: "c"})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"checkpoint", func(f *fixture, c context.Context) error {
		_, err := f.Checkpoint(c, &taskapi.CheckpointTaskRequest{ID: "c"})
		return err
	}, [6]string{impl, impl, impl, impl, impl, impl}},
	{"update", func(f *fixture, c context.Context) error {
		_, err := f.Update(c, &taskapi.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte(`{}`)}})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"update with nonsense", func(f *fixture, c context.Context) error {
		_, err := f.Update(c, &taskapi.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte(`x`)}})
		return err
	}, [6]string{nf, inval, inval, inval, inval, nf}},
	{"stats", func(f *fixture, c context.Context) error {
		_, err := f.Stats(c, &taskapi.StatsRequest{ID: "c"})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"connect", func(f *fixture, c context.Context) error {
		_, err := f.Connect(c, &taskapi.ConnectRequest{ID: "c"})
		return err
	}, [6]string{nf, ok, ok, ok, ok, nf}},
	{"shutdown", func(f *fixture, c context.Context) error {
		_, err := f.Shutdown(c, &taskapi.ShutdownRequest{ID: "c"})
		return err
	}, [6]string{ok, ok, ok, ok, ok, ok}},
}
