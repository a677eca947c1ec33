package debug

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

const (
	// maxConnections is how many clients there may be at once.
	maxConnections = 16
	// writeLimit is how long a client may read nothing.
	writeLimit = 30 * time.Second
)

// Listen serves in a directory, which is root's alone, until stop. It returns at once.
func (s *Service) Listen(ctx context.Context, dir string) (stop func() error, err error) {
	address := filepath.Join(dir, debugapi.Socket)
	listener, err := net.Listen("unix", address) //nolint:noctx // a Unix socket does not wait
	if err != nil {
		return nil, fmt.Errorf("serve debug requests: %w", err)
	}
	if err := os.Chmod(address, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("serve debug requests: %w", err), listener.Close())
	}
	server, err := ttrpc.NewServer(
		ttrpc.WithServerHandshaker(door{ttrpc.UnixSocketRequireSameUser(), make(chan struct{}, maxConnections)}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve debug requests: %w", err), listener.Close())
	}
	debugapi.RegisterDebugService(server, &guarded{s})
	if err := s.opts.History.keep(store.Open(dir)); err != nil { // what is in memory is there nevertheless
		log.G(ctx).WithError(err).WithField("sandbox", s.opts.Sandbox.ID()).Warn("events are lost with the shim")
	}
	if err := s.opts.Spans.Open(store.Open(dir), s.opts.Version); err != nil {
		log.G(ctx).WithError(err).WithField("sandbox", s.opts.Sandbox.ID()).Warn("spans are not kept")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	if s.opts.Heartbeat != (Heartbeat{}) {
		all.Go(func() { s.watch(ctx, dir) })
	}
	all.Go(func() {
		if err := server.Serve(ctx, listener); !errors.Is(err, ttrpc.ErrServerClosed) {
			log.G(ctx).WithError(err).Error("serve debug requests")
		}
	})
	return func() error {
		cancel()
		err := server.Close()
		_ = listener.Close() // before Serve has it, nobody else closes it
		all.Wait()
		s.opts.Spans.Close()
		return errors.Join(err, s.opts.History.journal.close(s.count()))
	}, nil
}

// door lets clients in: those of the same user, and not too many.
type door struct {
	user  ttrpc.UnixCredentialsFunc
	slots chan struct{}
}

// Handshake implements [ttrpc.Handshaker].
func (d door) Handshake(ctx context.Context, conn net.Conn) (net.Conn, any, error) {
	conn, credentials, err := d.user.Handshake(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	select {
	case d.slots <- struct{}{}:
	default:
		return nil, nil, fmt.Errorf("serve debug requests: %d clients are connected already: %w", maxConnections, errdefs.ErrResourceExhausted)
	}
	return &boundedConn{Conn: conn, leave: sync.OnceFunc(func() { <-d.slots })}, credentials, nil
}

// boundedConn is a connection whose client has to read.
type boundedConn struct {
	net.Conn

	leave func()
}

// Write implements [net.Conn].
func (c *boundedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close() // half a message is none
	}
	return n, err
}

// Close implements [net.Conn].
func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// guarded is the service with the boundary of errors at each method.
type guarded struct{ *Service }

// Info implements [debugapi.DebugService].
func (s *guarded) Info(ctx context.Context, r *debugapi.InfoRequest) (_ *debugapi.Document, err error) {
	defer func() { err = boundary(ctx, "Info", r, err, recover()) }()
	return s.Service.Info(ctx, r)
}

// End implements [debugapi.DebugService].
func (s *guarded) End(ctx context.Context, r *debugapi.EndRequest) (_ *debugapi.EndReply, err error) {
	defer func() { err = boundary(ctx, "End", r, err, recover()) }()
	return s.Service.End(ctx, r)
}

// AttachDisk implements [debugapi.DebugService].
func (s *guarded) AttachDisk(ctx context.Context, r *debugapi.AttachDiskRequest) (_ *debugapi.AttachDiskReply, err error) {
	defer func() { err = boundary(ctx, "AttachDisk", r, err, recover()) }()
	return s.Service.AttachDisk(ctx, r)
}

// DetachDisk implements [debugapi.DebugService].
func (s *guarded) DetachDisk(ctx context.Context, r *debugapi.DetachDiskRequest) (_ *debugapi.DetachDiskReply, err error) {
	defer func() { err = boundary(ctx, "DetachDisk", r, err, recover()) }()
	return s.Service.DetachDisk(ctx, r)
}

// Counters implements [debugapi.DebugService].
func (s *guarded) Counters(ctx context.Context, r *debugapi.CountersRequest) (_ *debugapi.Document, err error) {
	defer func() { err = boundary(ctx, "Counters", r, err, recover()) }()
	return s.Service.Counters(ctx, r)
}

// Trace implements [debugapi.DebugService].
func (s *guarded) Trace(ctx context.Context, r *debugapi.TraceRequest, out debugapi.Debug_TraceServer) (err error) {
	defer func() { err = boundary(ctx, "Trace", r, err, recover()) }()
	return s.Service.Trace(ctx, r, out)
}

// LogLevel implements [debugapi.DebugService].
func (s *guarded) LogLevel(ctx context.Context, r *debugapi.LogLevelRequest) (_ *debugapi.LogLevelReply, err error) {
	defer func() { err = boundary(ctx, "LogLevel", r, err, recover()) }()
	return s.Service.LogLevel(ctx, r)
}

// Console implements [debugapi.DebugService].
func (s *guarded) Console(ctx context.Context, r *debugapi.LogRequest, out debugapi.Debug_ConsoleServer) (err error) {
	defer func() { err = boundary(ctx, "Console", r, err, recover()) }()
	return s.Service.Console(ctx, r, out)
}

// Events implements [debugapi.DebugService].
func (s *guarded) Events(ctx context.Context, r *debugapi.LogRequest, out debugapi.Debug_EventsServer) (err error) {
	defer func() { err = boundary(ctx, "Events", r, err, recover()) }()
	return s.Service.Events(ctx, r, out)
}

// Dump implements [debugapi.DebugService].
func (s *guarded) Dump(ctx context.Context, r *debugapi.DumpRequest, out debugapi.Debug_DumpServer) (err error) {
	defer func() { err = boundary(ctx, "Dump", r, err, recover()) }()
	return s.Service.Dump(ctx, r, out)
}

// Exec implements [debugapi.DebugService].
func (s *guarded) Exec(ctx context.Context, conn debugapi.Debug_ExecServer) (err error) {
	var start *debugapi.ExecStart
	defer func() { err = boundary(ctx, "Exec", start, err, recover()) }()
	first, err := conn.Recv()
	if err != nil {
		return err
	}
	start = first.GetStart()
	return s.runProgram(activity.With(ctx, activity.Activity{ID: start.GetActivity(), Verbose: log.GetLevel() >= log.DebugLevel}), start, conn)
}

// Attach implements [debugapi.DebugService].
func (s *guarded) Attach(ctx context.Context, conn debugapi.Debug_AttachServer) (err error) {
	var start *debugapi.AttachStart
	defer func() { err = boundary(ctx, "Attach", start, err, recover()) }()
	first, err := conn.Recv()
	if err != nil {
		return err
	}
	start = first.GetStart()
	return s.attach(ctx, start, conn)
}

// boundary is where errors leave the shim: classes become codes, a panic becomes an error,
// and each failure is one line in the log.
func boundary(ctx context.Context, op string, request interface{ GetActivity() string }, err error, panicked any) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v: %w", panicked, errdefs.ErrInternal)
		log.G(ctx).WithField("stack", string(debug.Stack())).Error("panic in a debug request")
	}
	if err == nil {
		return nil
	}
	text := printable.Line(err.Error(), printable.MaxReport)
	log.G(ctx).WithField("op", op).WithField("activity", printable.Line(request.GetActivity(), printable.MaxName)).WithField("error", text).Warn("debug request failed")
	return errgrpc.ToGRPC(&boundaryError{text: text, class: errdefs.Resolve(err)})
}

// boundaryError is an error as it leaves the shim: one printable line, and one class.
type boundaryError struct {
	text  string
	class error
}

func (e *boundaryError) Error() string { return e.text }
func (e *boundaryError) Unwrap() error { return e.class }
