package otlp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
)

// decode turns lines of a file into messages. Lines that are not understood are left out; err is of the last of them.
func decode(lines []byte, more []*common.KeyValue) (all []*trace.ResourceSpans, count int, err error) {
	for line := range bytes.Lines(lines) {
		var t spans.Traces
		if lineErr := json.Unmarshal(line, &t); lineErr != nil {
			err = fmt.Errorf("decode spans: %w", lineErr)
			continue
		}
		for _, r := range t.ResourceSpans {
			converted, n, lineErr := convert(r, more)
			if lineErr != nil {
				err = lineErr
				continue
			}
			all, count = append(all, converted), count+n
		}
	}
	return all, count, err
}

func convert(r spans.ResourceSpans, more []*common.KeyValue) (*trace.ResourceSpans, int, error) {
	out := &trace.ResourceSpans{Resource: &resource.Resource{Attributes: merge(attributes(r.Resource.Attributes), more)}}
	count := 0
	for _, scope := range r.ScopeSpans {
		s := &trace.ScopeSpans{Scope: &common.InstrumentationScope{Name: scope.Scope.Name, Version: scope.Scope.Version}}
		for _, span := range scope.Spans {
			converted, err := convertSpan(span)
			if err != nil {
				return nil, 0, err
			}
			s.Spans = append(s.Spans, converted)
			count++
		}
		out.ScopeSpans = append(out.ScopeSpans, s)
	}
	return out, count, nil
}

func convertSpan(s spans.Span) (*trace.Span, error) {
	const traceLen, spanLen = 16, 8
	ids := make([][]byte, 0, 3)
	for _, id := range []struct {
		text string
		size int
	}{{s.TraceID, traceLen}, {s.SpanID, spanLen}, {s.ParentID, spanLen}} {
		b, err := hex.DecodeString(id.text)
		if err != nil || len(b) != id.size {
			return nil, fmt.Errorf("decode spans: %q is no id of %d bytes", id.text, id.size)
		}
		ids = append(ids, b)
	}
	return &trace.Span{
		TraceId: ids[0], SpanId: ids[1], ParentSpanId: ids[2], TraceState: s.TraceState, Flags: s.Flags, Name: s.Name,
		Kind: trace.Span_SpanKind(s.Kind), StartTimeUnixNano: uint64(s.Begin), EndTimeUnixNano: uint64(s.End),
		Attributes: attributes(s.Attributes), Status: &trace.Status{Message: s.Status.Message, Code: trace.Status_StatusCode(s.Status.Code)},
	}, nil
}

func attributes(list []spans.Attribute) []*common.KeyValue {
	all := make([]*common.KeyValue, 0, len(list))
	for _, a := range list {
		switch {
		case a.Value.Text != nil:
			all = append(all, text(a.Key, *a.Value.Text))
		case a.Value.Number != nil:
			all = append(all, &common.KeyValue{Key: a.Key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: *a.Value.Number}}})
		}
	}
	return all
}

func text(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

// merge adds attributes of the host to those of a sandbox, which has the last word.
func merge(own, more []*common.KeyValue) []*common.KeyValue {
	known := make(map[string]bool, len(own))
	for _, a := range own {
		known[a.GetKey()] = true
	}
	for _, a := range more {
		if !known[a.GetKey()] {
			own = append(own, a)
		}
	}
	return own
}
