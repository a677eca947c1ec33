package client

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

// inspector is what a guest tells about itself.
type inspector struct{ caller *caller }

// GuestInfo returns what the agent says of the guest.
func (i inspector) GuestInfo(ctx context.Context) (info hyperstart.GuestInfoReply, err error) {
	answer, err := i.caller.call(ctx, "guestinfo", "", nil)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(answer, &info); err != nil {
		return info, fmt.Errorf("decode information: %w", printable.Error(err, printable.MaxText))
	}
	info.Kernel, info.AgentVersion = printable.Line(info.Kernel, printable.MaxName), printable.Line(info.AgentVersion, printable.MaxName)
	return info, nil
}

// Stacks returns those of the agent's goroutines, as the guest has written them.
func (i inspector) Stacks(ctx context.Context) ([]byte, error) {
	return i.caller.call(ctx, "dumpstacks", "", nil)
}

// KernelTasks returns the tasks of the guest's kernel, as the guest has written them.
func (i inspector) KernelTasks(ctx context.Context) ([]byte, error) {
	return i.caller.call(ctx, "dumpstacks", "", hyperstart.DumpStacksRequest{Kernel: true})
}
