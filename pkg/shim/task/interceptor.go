package task

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
)

// UnaryServerInterceptor is the one boundary of errors: classes become codes,
// panics become errors, and every failed call is one line in the log.
// containerd's shim framework finds it by name.
func (s *Service) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (resp any, err error) {
		c := &call{begin: time.Now(), op: path.Base(info.FullMethod), method: info.FullMethod}
		parent := parentOf(ctx)
		c.span = s.spans.Begin(parent, c.begin)
		ctx = withActivity(ctx, parent, c.span)
		defer func() { err = s.end(ctx, c, err, recover()) }()
		return method(ctx, func(request any) error {
			err := unmarshal(request)
			if r, ok := request.(interface{ GetExecID() string }); ok && c.op == "Start" && r.GetExecID() != "" {
				c.op = "StartExec"
			}
			if c.span != nil {
				c.about = about(request)
			}
			return err
		})
	}
}

// call is what is known of one call.
type call struct {
	begin  time.Time
	op     string // as counters call it
	method string
	span   *spans.Call // nil when its client is not traced
	about  []spans.Attribute
}

// end ends a call: it is counted, logged and traced. The error is what its client gets.
func (s *Service) end(ctx context.Context, c *call, err error, panicked any) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v: %w", panicked, errdefs.ErrInternal)
		log.G(ctx).WithField("stack", string(debug.Stack())).Error("panic in a call")
	}
	took := time.Since(c.begin)
	if c.op != "Wait" { // which takes as long as a process lives
		s.counts.Add(c.op, took, err)
	}
	fields := log.Fields{"op": c.op, "took": took.String()}
	if err == nil {
		log.G(ctx).WithFields(fields).Debug("call")
		name, attributes := spanOf(c.method, nil)
		c.span.End(name, "", append(attributes, c.about...)...)
		return nil
	}
	text := printable.Line(err.Error(), printable.MaxReport)
	err = &boundaryError{text: text, class: errdefs.Resolve(err)}
	level, failure := log.ErrorLevel, text
	if errdefs.IsNotFound(err) {
		level, failure = log.InfoLevel, "" // containerd kills nearly every container once more after its end
	}
	log.G(ctx).WithFields(fields).WithError(err).Log(level, "call failed")
	err = errgrpc.ToGRPC(err)
	name, attributes := spanOf(c.method, err)
	c.span.End(name, failure, append(attributes, c.about...)...)
	return err
}

// boundaryError is an error as it leaves the shim: its text, of which a guest has
// written some parts, as one printable line, and one class.
// errgrpc would send the other branches of the tree as well, which clients
// show as more lines of the same.
type boundaryError struct {
	text  string
	class error
}

func (e *boundaryError) Error() string { return e.text }
func (e *boundaryError) Unwrap() error { return e.class }
