package debug

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

const (
	// attachLimit bounds what the VMM may take for a disk.
	attachLimit = 10 * time.Second
	// maxRelease bounds what a guest may take to release one.
	maxRelease = 5 * time.Minute
)

// AttachDisk answers the request of that name. What was begun is done to its end, also when the client has gone.
func (s *Service) AttachDisk(ctx context.Context, r *debugapi.AttachDiskRequest) (*debugapi.AttachDiskReply, error) {
	if err := s.usesDisks(); err != nil {
		return nil, fmt.Errorf("attach disk %s: %w", r.GetPath(), err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachLimit)
	defer cancel()
	disk, err := s.opts.Disks.Attach(ctx, r.GetPath(), r.GetReadOnly())
	if err != nil {
		return nil, err
	}
	access := ""
	if r.GetReadOnly() {
		access = ", read-only"
	}
	s.opts.History.Note("attach", fmt.Sprintf("%s is %s%s, asked for by %s", disk.ID, disk.Path, access, printable.Line(r.GetBy(), printable.MaxName)))
	return &debugapi.AttachDiskReply{Disk: disk.ID}, nil
}

// DetachDisk answers the request of that name.
func (s *Service) DetachDisk(ctx context.Context, r *debugapi.DetachDiskRequest) (*debugapi.DetachDiskReply, error) {
	if err := s.usesDisks(); err != nil {
		return nil, fmt.Errorf("detach disk %s: %w", r.GetDisk(), err)
	}
	limit := attachLimit
	if r.GetTimeout() > 0 {
		limit = min(time.Duration(r.GetTimeout()), maxRelease)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := s.opts.Disks.Detach(ctx, r.GetDisk()); err != nil {
		return nil, err
	}
	s.opts.History.Note("detach", fmt.Sprintf("%s, asked for by %s", r.GetDisk(), printable.Line(r.GetBy(), printable.MaxName)))
	return &debugapi.DetachDiskReply{}, nil
}

// usesDisks is why nobody could use a disk in the VM; nil when somebody can, as ccv2 exec does.
func (s *Service) usesDisks() error {
	guest := s.opts.Machine.Report().Guest
	if guest == nil {
		return fmt.Errorf("there is no guest yet: %w", errdefs.ErrFailedPrecondition)
	}
	if _, ok := guest.(Inspector); !ok {
		return fmt.Errorf("a guest of dialect %s cannot be told to use it: %w", guest.Dialect(), errdefs.ErrNotImplemented)
	}
	return nil
}
