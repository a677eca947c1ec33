package client

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// snapshots are the abilities of a guest that others can go on from.
type snapshots struct{ caller *caller }

// Quiesce prepares the guest, in which no pod was started, for being saved.
func (s snapshots) Quiesce(ctx context.Context) error {
	_, err := s.caller.call(ctx, "quiesce", "", nil)
	return err
}

// WarmUp has the guest, in which no pod was started, run a container, so that a pod's start faster.
func (s snapshots) WarmUp(ctx context.Context) error {
	_, err := s.caller.call(ctx, "warmup", "", nil)
	return err
}

// Online returns when the guest uses what was plugged since it has booted.
func (s snapshots) Online(ctx context.Context, cpus, memoryMiB int) error {
	_, err := s.caller.call(ctx, "onlinecpumem", "", hyperstart.OnlineRequest{CPUs: cpus, MemoryMiB: memoryMiB})
	return err
}

// Reseed gives a guest that goes on from another one random numbers of its own.
// entropy is secret, of 32 to 512 bytes.
func (s snapshots) Reseed(ctx context.Context, entropy []byte) error {
	_, err := s.caller.call(ctx, "reseed", "", hyperstart.ReseedRequest{Entropy: entropy})
	return err
}
