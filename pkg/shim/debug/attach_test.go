package debug_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/blockdev"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
)

// disks are those of a machine in memory.
type disks struct{ *machine }

func (m disks) Attach(_ context.Context, path string, readOnly bool) (blockdev.Attached, error) {
	if path == "/in/use" {
		return blockdev.Attached{}, fmt.Errorf("attach disk %s: it is in use: %w", path, errdefs.ErrFailedPrecondition)
	}
	d := blockdev.Attached{ID: "disk1", Path: path, ReadOnly: readOnly}
	m.edit(func(r *podvm.Report) { r.Attached = append(r.Attached, d) })
	return d, nil
}

func (m disks) Detach(ctx context.Context, name string) error {
	if name == "kept" {
		<-ctx.Done()
		return fmt.Errorf("detach disk %s: the guest does not release it: %w", name, ctx.Err())
	}
	m.edit(func(r *podvm.Report) { r.Attached = nil })
	return nil
}

// TestAttachDisk: what an operator attaches is an event, and known as long as it is there.
func TestAttachDisk(t *testing.T) {
	f := newFixture(t)
	answer, err := f.AttachDisk(t.Context(), &debugapi.AttachDiskRequest{Path: "/dev/a\x1b[2J", ReadOnly: true, By: "some"})
	if err != nil || answer.GetDisk() != "disk1" {
		t.Fatalf("got %v, %v", answer, err)
	}
	if all := f.info(t, false).VM.Attached; len(all) != 1 || all[0] != (debugapi.Attached{ID: "disk1", Path: "/dev/a?[2J", ReadOnly: true}) {
		t.Errorf("attached: %+v", all)
	}
	if _, err := f.AttachDisk(t.Context(), &debugapi.AttachDiskRequest{Path: "/in/use"}); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("in use: %v", err)
	}
	if _, err := f.DetachDisk(t.Context(), &debugapi.DetachDiskRequest{Disk: "kept", Timeout: 1}); err == nil || !strings.Contains(err.Error(), "does not release it") {
		t.Errorf("kept: %v", err)
	}
	if _, err := f.DetachDisk(t.Context(), &debugapi.DetachDiskRequest{Disk: "disk1", By: "someone"}); err != nil {
		t.Error(err)
	}
	if all := f.info(t, false).VM.Attached; len(all) > 0 {
		t.Errorf("attached: %+v", all)
	}
	stream, err := f.Events(t.Context(), &debugapi.LogRequest{})
	got := strings.Join(receive(t, stream, err), "\n")
	want := "attachdisk1 is /dev/a?[2J, read-only, asked for by some lost 0\ndetachdisk1, asked for by someone lost 0"
	if got != want {
		t.Errorf("events:\n%s", got)
	}
	for want, guest := range map[string]client.Guest{"there is no guest yet": nil, "cannot be told to use it": f.machine.Agent} { // an original one
		f.machine.edit(func(r *podvm.Report) { r.Guest = guest })
		if _, err := f.AttachDisk(t.Context(), &debugapi.AttachDiskRequest{Path: "/a"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := f.DetachDisk(t.Context(), &debugapi.DetachDiskRequest{Disk: "/a"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
