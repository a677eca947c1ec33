package debug

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
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
		ttrpc.WithUnaryServerInterceptor(intercept),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve debug requests: %w", err), listener.Close())
	}
	debugapi.RegisterDebugService(server, &streams{s})
	ctx = context.WithoutCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ctx, listener); !errors.Is(err, ttrpc.ErrServerClosed) {
			log.G(ctx).WithError(err).Error("serve debug requests")
		}
	}()
	return func() error {
		err := server.Close()
		_ = listener.Close() // before Serve has it, nobody else closes it
		<-done
		return err
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

// intercept is the boundary of errors of methods that answer once.
func intercept(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (resp any, err error) {
	defer func() { err = boundary(ctx, path.Base(info.FullMethod), err, recover()) }()
	return method(ctx, unmarshal)
}

// streams is the service with the boundary of errors at methods that stream, for which
// ttrpc has no interceptors.
type streams struct{ *Service }

// Console implements [debugapi.DebugService].
func (s *streams) Console(ctx context.Context, r *debugapi.LogRequest, out debugapi.Debug_ConsoleServer) (err error) {
	defer func() { err = boundary(ctx, "Console", err, recover()) }()
	return s.Service.Console(ctx, r, out)
}

// Events implements [debugapi.DebugService].
func (s *streams) Events(ctx context.Context, r *debugapi.LogRequest, out debugapi.Debug_EventsServer) (err error) {
	defer func() { err = boundary(ctx, "Events", err, recover()) }()
	return s.Service.Events(ctx, r, out)
}

// Dump implements [debugapi.DebugService].
func (s *streams) Dump(ctx context.Context, r *debugapi.DumpRequest, out debugapi.Debug_DumpServer) (err error) {
	defer func() { err = boundary(ctx, "Dump", err, recover()) }()
	return s.Service.Dump(ctx, r, out)
}

// Exec implements [debugapi.DebugService].
func (s *streams) Exec(ctx context.Context, conn debugapi.Debug_ExecServer) (err error) {
	defer func() { err = boundary(ctx, "Exec", err, recover()) }()
	return s.Service.Exec(ctx, conn)
}

// boundary is where errors leave the shim: classes become codes, a panic becomes an error,
// and each failure is one line in the log.
func boundary(ctx context.Context, op string, err error, panicked any) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v: %w", panicked, errdefs.ErrInternal)
		log.G(ctx).WithField("stack", string(debug.Stack())).Error("panic in a debug request")
	}
	if err == nil {
		return nil
	}
	text := printable.Line(err.Error(), printable.MaxReport)
	log.G(ctx).WithField("op", op).WithField("activity", activity(ctx)).WithField("error", text).Warn("debug request failed")
	return errgrpc.ToGRPC(&boundaryError{text: text, class: errdefs.Resolve(err)})
}

// boundaryError is an error as it leaves the shim: one printable line, and one class.
type boundaryError struct {
	text  string
	class error
}

func (e *boundaryError) Error() string { return e.text }
func (e *boundaryError) Unwrap() error { return e.class }

// activity is the id that the client has given the request.
func activity(ctx context.Context) string {
	md, _ := ttrpc.GetMetadata(ctx)
	id, _ := md.Get(debugapi.Activity)
	if len(id) == 0 {
		return ""
	}
	return printable.Line(id[0], printable.MaxName)
}
