package operate

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func (s shim) AttachDisk(_ context.Context, r *debugapi.AttachDiskRequest) (*debugapi.AttachDiskReply, error) {
	if !filepath.IsAbs(r.GetPath()) || r.GetBy() == "" || !r.GetReadOnly() {
		return nil, errgrpc.ToGRPC(errdefs.ErrInvalidArgument)
	}
	return &debugapi.AttachDiskReply{Disk: "disk1\x1b"}, nil
}

func (s shim) DetachDisk(_ context.Context, r *debugapi.DetachDiskRequest) (*debugapi.DetachDiskReply, error) {
	if r.GetDisk() != "disk1" && !filepath.IsAbs(r.GetDisk()) || r.GetTimeout() != 3e9 {
		return nil, errgrpc.ToGRPC(errdefs.ErrNotFound)
	}
	return &debugapi.DetachDiskReply{}, nil
}

// TestDisk: paths are those of the caller's directory, and what cannot be meant is refused.
func TestDisk(t *testing.T) {
	h := newHost(t)
	h.serve(h.sandbox("s", true, store.About{}), debugapi.Info{})
	h.listen(h.sandbox("hangs", true, store.About{}))
	h.sandbox("died", false, store.About{})
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--read-only", "attach", "s", "image"}, 0, "disk1?\n"},
		{[]string{"--json", "--read-only", "attach", "s", "image"}, 0, `"disk": "disk1`},
		{[]string{"attach", "s", "image"}, 1, "activity"},
		{[]string{"--release=3s", "detach", "s", "disk1"}, 0, ""},
		{[]string{"--release=3s", "detach", "s", "./image"}, 0, ""},
		{[]string{"detach", "s", "disk1"}, 1, "not found"},
		{[]string{"--release=0s", "detach", "s", "disk1"}, 2, "want more than 0"},
		{[]string{"attach", "hangs", "image"}, 5, "does not answer"},
		{[]string{"attach", "died", "image"}, 5, "is dead"},
		{[]string{"attach", "none", "image"}, 3, "ccv2 ps"},
		{[]string{"list", "s", "image"}, 2, "attach|detach"},
		{[]string{"attach", "s"}, 2, "attach|detach"},
	} {
		if status, stdout, stderr := h.run(append([]string{"disk"}, tt.args...)...); status != tt.status || !strings.Contains(stdout+stderr, tt.want) {
			t.Errorf("%q: status %d: %s%s, want %d: %q", tt.args, status, stdout, stderr, tt.status, tt.want)
		}
	}
	if _, stdout, _ := h.run("disk", "--generate-shell-completion"); stdout != "attach\ndetach\n" {
		t.Errorf("completion: %q", stdout)
	}
	if _, stdout, _ := h.run("disk", "attach", "--generate-shell-completion"); !strings.Contains(stdout, "hangs") {
		t.Errorf("completion: %q", stdout)
	}
}
