package task

import (
	"os"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
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
