package task

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schema is what a file of messages and services says, without names of its
// version.
func schema(file protoreflect.FileDescriptor, version string) string {
	d := protodesc.ToFileDescriptorProto(file)
	d.Options, d.SourceCodeInfo, d.Name = nil, nil, nil
	return strings.ReplaceAll(prototext.Format(d), "containerd.task."+version, "containerd.task")
}

// TestVersionsAreEqualOnTheWire: one implementation serves both because their
// schemas are the same.
func TestVersionsAreEqualOnTheWire(t *testing.T) {
	v2 := taskv2.File_runtime_task_v2_shim_proto
	v3 := taskapi.File_runtime_task_v3_shim_proto
	// prototext varies its spaces on purpose, but not within a process.
	if diff := cmp.Diff(schema(v3, "v3"), schema(v2, "v2")); diff != "" {
		t.Errorf("version 2 differs from version 3:\n%s", diff)
	}
	service := v2.Services().Get(0)
	if string(service.FullName()) != version2 {
		t.Errorf("the service of version 2 is %s", service.FullName())
	}
	var want []string
	for i := range service.Methods().Len() {
		want = append(want, string(service.Methods().Get(i).Name()))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(methods(&Service{})))); diff != "" {
		t.Errorf("methods of version 2:\n%s", diff)
	}
}

// serveOn serves the fixture as the framework does and returns a connection to it.
func (f *fixture) serveOn() *ttrpc.Client {
	f.t.Helper()
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(f.UnaryServerInterceptor()))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.RegisterTTRPC(server); err != nil {
		f.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ccv2-task-") // a socket needs a short path
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(f.t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		f.t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(f.t.Context(), l) // it ends with Close
	}()
	conn, err := (&net.Dialer{}).DialContext(f.t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		f.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	f.t.Cleanup(func() {
		_ = client.Close()
		_ = client.UserOnCloseWait(context.Background())
		_ = server.Close()
		<-served
		_ = os.RemoveAll(dir)
	})
	return client
}

// TestClientsOfBothVersions: a container that one version has created is known
// to the other, which is what an upgrade of containerd needs.
func TestClientsOfBothVersions(t *testing.T) {
	f := newFixture(t)
	conn := f.serveOn()
	ctx := t.Context()
	v2, v3 := taskv2.NewTTRPCTaskClient(conn), taskapi.NewTTRPCTaskClient(conn)

	created := must[*taskv2.CreateTaskResponse](t)(v2.Create(ctx, &taskv2.CreateTaskRequest{ID: "c", Bundle: f.bundle("wait"), Stdout: "/dev/null"}))
	if created.Pid == 0 {
		t.Error("created without a pid")
	}
	if _, err := v3.Start(ctx, &taskapi.StartRequest{ID: "c"}); err != nil {
		t.Fatal(err)
	}
	if _, err := v2.Exec(ctx, &taskv2.ExecProcessRequest{ID: "c", ExecID: "e", Spec: process("wait")}); err != nil {
		t.Fatal(err)
	}
	state := must[*taskv2.StateResponse](t)(v2.State(ctx, &taskv2.StateRequest{ID: "c"}))
	if state.Status != tasktypes.Status_RUNNING || state.Pid != created.Pid || state.Stdout != "/dev/null" || state.ExitedAt != nil {
		t.Errorf("state %v", state)
	}
	connected := must[*taskv2.ConnectResponse](t)(v2.Connect(ctx, &taskv2.ConnectRequest{ID: "c"}))
	if int(connected.ShimPid) != os.Getpid() || connected.TaskPid != created.Pid {
		t.Errorf("connect: %v", connected)
	}
	if _, err := v2.Kill(ctx, &taskv2.KillRequest{ID: "c", Signal: 9, All: true}); err != nil {
		t.Fatal(err)
	}
	waited := must[*taskv2.WaitResponse](t)(v2.Wait(ctx, &taskv2.WaitRequest{ID: "c"}))
	gone := must[*taskv2.DeleteResponse](t)(v2.Delete(ctx, &taskv2.DeleteRequest{ID: "c"}))
	if waited.ExitStatus != 137 || gone.ExitStatus != 137 || !gone.ExitedAt.AsTime().Equal(waited.ExitedAt.AsTime()) || gone.Pid != created.Pid {
		t.Errorf("wait %v, delete %v", waited, gone)
	}
	_, err := v2.State(ctx, &taskv2.StateRequest{ID: "c"})
	if back := errgrpc.ToNative(err); !errdefs.IsNotFound(back) {
		t.Errorf("state after delete: %v", back)
	}
	if _, err := v2.Checkpoint(ctx, &taskv2.CheckpointTaskRequest{ID: "c"}); !errdefs.IsNotImplemented(errgrpc.ToNative(err)) {
		t.Errorf("checkpoint: %v", err)
	}
	if _, err := v2.Shutdown(ctx, &taskv2.ShutdownRequest{ID: "c"}); err != nil {
		t.Fatal(err)
	}
	<-f.down
}
