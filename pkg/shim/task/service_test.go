package task

import (
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
