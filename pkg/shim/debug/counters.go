package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// Counters answers the request of that name.
func (s *Service) Counters(context.Context, *debugapi.CountersRequest) (*debugapi.Document, error) {
	text, err := json.Marshal(s.count())
	if err != nil {
		return nil, fmt.Errorf("encode information: %w", err)
	}
	return &debugapi.Document{Json: text}, nil
}

// count says what was counted. It asks nobody.
func (s *Service) count() debugapi.Counters {
	report := s.opts.Machine.Report()
	c := debugapi.Counters{
		Namespace: s.opts.Namespace, ID: s.opts.Sandbox.ID(), State: s.opts.Sandbox.State().String(), Paused: report.Paused,
		Source: report.Source, Failure: failureOf(report), Events: s.opts.History.counts(), Streams: streamsOf(s.opts.Sandbox),
	}
	s.health.mu.Lock()
	c.Unhealthy, c.Heartbeat, c.Guest = s.health.ill, s.health.at, s.health.guest
	s.health.mu.Unlock()
	for _, p := range report.Phases {
		c.Phases = append(c.Phases, phase(p))
		if p.Err != nil {
			c.FailedPhase = p.Name
		}
	}
	for _, n := range s.opts.Tap.Counts() {
		c.Wire = append(c.Wire, debugapi.WireCount{Layer: n.Layer.String(), ToHost: n.ToHost, Kind: n.Kind, Messages: n.Messages, Bytes: n.Bytes})
	}
	bounds := make([]int64, len(calls.Bounds))
	for i, b := range calls.Bounds {
		bounds[i] = b.Nanoseconds()
	}
	for _, o := range s.opts.Calls.Operations() {
		c.Calls = append(c.Calls, debugapi.Operation{Name: o.Name, Bounds: bounds, Took: o.Took[:], Total: o.Total.Nanoseconds(), Failed: o.Failed})
	}
	return c
}

// failureOf is why the VM has ended, a word; "" as long as it has not, and when it was to end.
func failureOf(report podvm.Report) string {
	switch {
	case report.Lost == nil:
		return ""
	case report.LostPart != "":
		return report.LostPart
	case errors.Is(report.Lost, sandbox.ErrUnkillable):
		return "unkillable"
	case errors.Is(report.Lost, errByOperator):
		return "operator"
	case errors.Is(report.Lost, errHung):
		return "hung"
	}
	return ""
}

// streamsOf are the counts of all processes that there are.
func streamsOf(s Sandbox) (all []debugapi.StreamCount) {
	for _, c := range s.List() {
		for _, p := range c.List() {
			if n := sandbox.Moved(p); n.Stdin+n.Stdout+n.Stderr > 0 {
				all = append(all, debugapi.StreamCount{Container: c.ID, Process: p.ID, Stdin: n.Stdin, Stdout: n.Stdout, Stderr: n.Stderr})
			}
		}
	}
	return all
}
