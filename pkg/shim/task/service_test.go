package task

import (
	"context"
	"os"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
)

// TestConnectWithoutContainer tells the shim's pid, as runc's shim does.
func TestConnectWithoutContainer(t *testing.T) {
	resp, err := (&Service{}).Connect(t.Context(), &taskapi.ConnectRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if int(resp.ShimPid) != os.Getpid() || resp.TaskPid != 0 {
		t.Errorf("got %v, want shim pid %d alone", resp, os.Getpid())
	}
}

// TestCreateAgainBesideOthers: a container that is started again while another one is in
// its VM cannot have a VM of its own, and says so; the other one runs on.
func TestCreateAgainBesideOthers(t *testing.T) {
	f := newFixture(t)
	create := func(id string) error {
		_, err := f.Create(t.Context(), &taskapi.CreateTaskRequest{ID: id, Bundle: f.bundle("wait")})
		return err
	}
	for _, id := range []string{"pod", "joined"} {
		if err := create(id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Delete(t.Context(), &taskapi.DeleteRequest{ID: "pod"}); err != nil {
		t.Fatal(err)
	}
	if err := create("pod"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "containers that have joined it") {
		t.Errorf("again: %v", err)
	}
	if got, err := f.State(t.Context(), &taskapi.StateRequest{ID: "joined"}); err != nil || got.Pid == 0 {
		t.Errorf("the other one: %v, %v", got, err)
	}
}

// TestStateWhileCreated: a container that is being created is not there yet, as with
// runc. Who sees its cgroup before its pid, as the kubelet's cAdvisor does, asks again
// after that answer; pid 0 it would keep, and never count the pod's network.
func TestStateWhileCreated(t *testing.T) {
	f := newFixture(t)
	booting, boot := make(chan struct{}), make(chan struct{})
	f.machine.OnStep = func(ctx context.Context, step string) error {
		if step != "boot" {
			return nil
		}
		close(booting)
		select {
		case <-boot:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	created := make(chan error, 1)
	go func() {
		_, err := f.Create(t.Context(), &taskapi.CreateTaskRequest{ID: "pod", Bundle: f.bundle("wait")})
		created <- err
	}()
	<-booting
	if got, err := f.State(t.Context(), &taskapi.StateRequest{ID: "pod"}); !errdefs.IsNotFound(err) {
		t.Errorf("before: %v, %v", got, err)
	}
	close(boot)
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	if got, err := f.State(t.Context(), &taskapi.StateRequest{ID: "pod"}); err != nil || got.Pid == 0 {
		t.Errorf("after: %v, %v", got, err)
	}
}
