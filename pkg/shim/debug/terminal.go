package debug

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// maxTyped bounds what is typed at once.
const maxTyped = 4 << 10

// seat is the place before the console, which has room for one.
type seat struct {
	mu sync.Mutex // guards by
	by string     // who has it; "" when nobody does
}

// take takes the seat; by is who has it otherwise.
func (s *seat) take(by string) (holder string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by != "" {
		return s.by, false
	}
	s.by = by
	return by, true
}

func (s *seat) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = ""
}

// attach has a client type on the console. Others may watch it meanwhile.
func (s *Service) attach(ctx context.Context, start *debugapi.AttachStart, conn debugapi.Debug_AttachServer) error {
	id, report := s.opts.Sandbox.ID(), s.opts.Machine.Report()
	if !report.Config.ConsoleInput {
		return fmt.Errorf("attach to the console of sandbox %s: its configuration does not let anybody type there: console_input = true in [guest], for pods that start then: %w", id, errdefs.ErrPermissionDenied)
	}
	terminal, ok := report.VM.(hypervisor.Terminal)
	if !ok {
		return fmt.Errorf("attach to the console of sandbox %s: there is no vm yet, or none with a console: %w", id, errdefs.ErrFailedPrecondition)
	}
	by := printable.Line(start.GetBy(), printable.MaxName)
	if holder, ok := s.seat.take(by); !ok {
		return fmt.Errorf("attach to the console of sandbox %s: %s is attached; --follow watches: %w", id, holder, errdefs.ErrFailedPrecondition)
	}
	defer s.seat.leave()
	s.opts.History.Note("console-attach", "by "+by)
	defer s.opts.History.Note("console-detach", "by "+by)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer cancel()
		show(ctx, terminal, conn)
	})
	typed := make(chan error, 1)
	go func() { typed <- take(terminal, conn) }() // ends with the connection's request, which ends with this function
	select {
	case err := <-typed:
		return err
	case <-report.VM.Done():
		return nil
	case <-ctx.Done():
		return nil // the client has gone
	}
}

// take has the client type until it leaves.
func take(terminal hypervisor.Terminal, conn debugapi.Debug_AttachServer) error {
	for {
		m, err := conn.Recv()
		if err != nil {
			return nil //nolint:nilerr // the client has gone
		}
		if len(m.GetTyped()) > maxTyped {
			return fmt.Errorf("type on the console: %d bytes at once, at most %d: %w", len(m.GetTyped()), maxTyped, errdefs.ErrInvalidArgument)
		}
		if err := terminal.Type(m.GetTyped()); err != nil {
			return err
		}
	}
}

// show sends what the guest writes, until the client leaves.
func show(ctx context.Context, terminal hypervisor.Terminal, conn debugapi.Debug_AttachServer) {
	pieces, next, begin, stop := terminal.Watch()
	defer stop()
	if conn.Send(&debugapi.ConsoleOutput{Text: begin}) != nil {
		return
	}
	for pieces.Wait(ctx, next) == nil {
		all, lost := pieces.From(next)
		next += lost + uint64(len(all))
		for _, text := range all {
			if conn.Send(&debugapi.ConsoleOutput{Text: text, Lost: lost}) != nil {
				return
			}
			lost = 0
		}
	}
}
