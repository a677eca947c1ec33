package debug

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// Trace answers the request of that name.
func (s *Service) Trace(ctx context.Context, r *debugapi.TraceRequest, out debugapi.Debug_TraceServer) error {
	if s.opts.Tap == nil {
		return fmt.Errorf("trace sandbox %s: this shim has no tap: %w", s.opts.Sandbox.ID(), errdefs.ErrNotImplemented)
	}
	watch := s.opts.Tap.Watch()
	defer watch.Close()
	if err := out.Send(&debugapi.Message{}); err != nil { // the client knows that what comes now is seen
		return err
	}
	for {
		messages, lost, err := watch.Next(ctx)
		if err != nil {
			return nil // the client has gone
		}
		for i, m := range messages {
			sent := &debugapi.Message{Time: m.Time, Layer: uint32(m.Layer), ToHost: m.ToHost, Connection: m.Conn, Size: uint32(m.Size), Raw: m.Raw}
			if !r.GetSecrets() {
				sent.Raw = wiretap.Redact(m)
			}
			if i == len(messages)-1 {
				sent.Lost = lost
			}
			if len(r.GetLayers()) > 0 && !slices.Contains(r.GetLayers(), m.Layer.String()) {
				if sent.Lost == 0 {
					continue
				}
				sent.Raw, sent.Size = nil, 0 // what was lost is to be known
			}
			if err := out.Send(sent); err != nil {
				return err
			}
		}
	}
}
