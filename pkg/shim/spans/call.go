package spans

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

const (
	// maxParts bounds the parts of one call: the start of a sandbox has some 30.
	maxParts = 64
	// maxMessage bounds the text of one error, in bytes.
	maxMessage = 512
)

// Call is one that is traced. The methods of a nil Call do nothing.
type Call struct {
	recorder *Recorder
	span     Span

	mu    sync.Mutex // guards what follows
	parts []Span
	lost  int64
	ended bool
}

// Begin begins the span of a call; nil when its client is not sampled.
func (r *Recorder) Begin(p Parent, begin time.Time) *Call {
	if r == nil || !p.Sampled {
		return nil
	}
	return &Call{recorder: r, span: Span{
		TraceID: p.Trace, SpanID: newID(), TraceState: p.state, ParentID: p.span, Kind: Server, Begin: begin.UnixNano(),
		Flags: flagSampled | flagKnownRemote | flagRemote,
	}}
}

// Part adds a part that has ended. What the guest does is a client's span, whose name begins with "guest".
func (c *Call) Part(name string, begin time.Time, err error) {
	if c == nil {
		return
	}
	s := Span{
		TraceID: c.span.TraceID, SpanID: newID(), TraceState: c.span.TraceState, ParentID: c.span.SpanID, Name: name, Kind: Internal,
		Begin: begin.UnixNano(), End: time.Now().UnixNano(), Flags: flagSampled | flagKnownRemote,
	}
	if strings.HasPrefix(name, "guest ") {
		s.Kind = Client
	}
	if err != nil {
		s.Status = Status{Code: StatusError, Message: printable.Line(err.Error(), maxMessage)}
	}
	if c.add(s) {
		c.recorder.write(s)
	}
}

// add keeps a part until the call ends; late is whether it has, while the part went on. What begins later is no part of
// it.
func (c *Call) add(s Span) (late bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
		return s.Begin <= c.span.End
	case len(c.parts) >= maxParts:
		c.lost++
	default:
		c.parts = append(c.parts, s)
	}
	return false
}

// End ends the call and writes it with its parts. failure is "" when it has succeeded.
func (c *Call) End(name, failure string, attributes ...Attribute) {
	if c == nil {
		return
	}
	s := c.span
	s.Name, s.End, s.Attributes = name, time.Now().UnixNano(), attributes
	if failure != "" {
		s.Status = Status{Code: StatusError, Message: printable.Line(failure, maxMessage)}
	}
	c.mu.Lock()
	c.ended, c.span.End = true, s.End
	parts, lost := c.parts, c.lost
	c.parts = nil
	c.mu.Unlock()
	if lost > 0 {
		s.Attributes = append(s.Attributes, Number("ccv2.parts.dropped", lost))
	}
	c.recorder.write(append([]Span{s}, parts...)...)
}

// newID is the id of a span.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
