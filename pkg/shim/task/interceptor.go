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
)

// UnaryServerInterceptor is the one boundary of errors: classes become codes,
// panics become errors, and every failed call is one line in the log.
// containerd's shim framework finds it by name.
func (s *Service) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (resp any, err error) {
		begin := time.Now()
		ctx = withActivity(ctx)
		op := path.Base(info.FullMethod)
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("panic: %v: %w", cause, errdefs.ErrInternal)
				log.G(ctx).WithField("stack", string(debug.Stack())).Error("panic in a call")
			}
			took := time.Since(begin)
			if op != "Wait" { // which takes as long as a process lives
				s.counts.Add(op, took, err)
			}
			fields := log.Fields{"op": op, "took": took.String()}
			if err == nil {
				log.G(ctx).WithFields(fields).Debug("call")
				return
			}
			err = &boundaryError{text: printable.Line(err.Error(), printable.MaxReport), class: errdefs.Resolve(err)}
			level := log.ErrorLevel
			if errdefs.IsNotFound(err) {
				level = log.InfoLevel // containerd kills nearly every container once more after its end
			}
			log.G(ctx).WithFields(fields).WithError(err).Log(level, "call failed")
			err = errgrpc.ToGRPC(err)
		}()
		return method(ctx, func(request any) error {
			err := unmarshal(request)
			if r, ok := request.(interface{ GetExecID() string }); ok && op == "Start" && r.GetExecID() != "" {
				op = "StartExec"
			}
			return err
		})
	}
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
