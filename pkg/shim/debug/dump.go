package debug

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// Inspector is what a client.Guest is beside that when it tells about itself.
type Inspector interface {
	GuestInfo(ctx context.Context) (hyperstart.GuestInfoReply, error)
	// Stacks are those of the agent's goroutines.
	Stacks(ctx context.Context) ([]byte, error)
	// KernelTasks are those of the guest's kernel, with their stacks, and the last of its log.
	KernelTasks(ctx context.Context) ([]byte, error)
}

const (
	// maxPart bounds a message of a dump; a part may have several.
	maxPart = 256 << 10
	// maxShimStacks bounds the stacks of the shim.
	maxShimStacks = 8 << 20
	// dumpLimit bounds each part that has to be asked for. The kernel's tasks take longest,
	// in a guest that is emulated.
	dumpLimit = 10 * time.Second
)

// Dump answers the request of that name.
func (s *Service) Dump(ctx context.Context, r *debugapi.DumpRequest, out debugapi.Debug_DumpServer) error {
	report := s.opts.Machine.Report()
	parts := []struct {
		name string
		text func(context.Context) ([]byte, error)
	}{
		{"info.json", func(ctx context.Context) ([]byte, error) { return json.MarshalIndent(s.describe(ctx, true), "", "  ") }},
		{"shim-stacks.txt", func(context.Context) ([]byte, error) { return stacks(), nil }},
		{"vmm.txt", func(ctx context.Context) ([]byte, error) {
			o, ok := report.VM.(hypervisor.Observable)
			if !ok {
				return nil, fmt.Errorf("there is no vm yet, or one of another kind: %w", errdefs.ErrFailedPrecondition)
			}
			return o.Inspect(ctx)
		}},
		{"agent-stacks.txt", guestText(report.Guest, Inspector.Stacks)},
		{"guest-tasks.txt", guestText(report.Guest, Inspector.KernelTasks)},
	}
	if !r.GetTasks() {
		parts = parts[:len(parts)-1]
	}
	for _, p := range parts {
		if err := sendPart(ctx, p.name, p.text, out); err != nil {
			return err
		}
	}
	return nil
}

// guestText asks the guest for a text.
func guestText(guest any, ask func(Inspector, context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		inspector, ok := guest.(Inspector)
		if !ok {
			return nil, fmt.Errorf("there is no guest yet, or one that cannot tell: %w", errdefs.ErrFailedPrecondition)
		}
		return ask(inspector, ctx)
	}
}

// sendPart sends one part. What it has in spite of an error is sent as well.
func sendPart(ctx context.Context, name string, text func(context.Context) ([]byte, error), out debugapi.Debug_DumpServer) error {
	bounded, cancel := context.WithTimeout(ctx, dumpLimit)
	b, err := text(bounded)
	cancel()
	for len(b) > 0 {
		n := min(len(b), maxPart)
		if err := out.Send(&debugapi.Part{Name: name, Text: b[:n]}); err != nil {
			return err
		}
		b = b[n:]
	}
	if err == nil {
		return nil
	}
	why := line(err)
	if bounded.Err() != nil {
		why = fmt.Sprintf("no answer within %s: what is asked is stopped, or hangs", dumpLimit)
	}
	return out.Send(&debugapi.Part{Name: name, Error: why})
}

// stacks are those of all goroutines of this process.
func stacks() []byte {
	for size := 64 << 10; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= maxShimStacks {
			return bytes.Clone(b[:n])
		}
	}
}
