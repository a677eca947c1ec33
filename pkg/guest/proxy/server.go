package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/socketpair"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// claimTimeout is how long a command waits for a shim to claim its token, and
// a shim for its process to start: the original's 30 s.
const claimTimeout = 30 * time.Second

// Options of a [Server].
type Options struct {
	// URL is reported to clients as the place where shims connect; "" outside of a
	// listening server.
	URL string
	// Dialect is used instead of asking the guest when it is not DialectUnknown.
	Dialect hyperstart.Dialect
	// Reattach is set when the guests have said READY before, and may run processes of
	// an earlier connection.
	Reattach bool
	// Restored is set when the guests have said READY before and run nothing yet.
	Restored bool
	// Version1, when set, serves the clients of a listener that speak version 1 of the
	// protocol. The server closes it.
	Version1 Version1
	// Tap, when set, sees the messages of the guests, and the frames of version 2.
	Tap *wiretap.Tap
	// GuestLog, when set, gets what the guests' agents log. It must not block.
	GuestLog func(hyperstart.LogMessage)
	// Log gets valid log entries of clients. It must not block.
	Log func(proxyproto.LogEntry)
	// CutOff, when set, gets the errors for which clients were cut off. It must not block. They quote
	// what clients have sent, at any length.
	CutOff func(error)
}

// handlers get what one VM reports. Each may be nil.
type handlers struct {
	event func(hyperstart.EventMessage)
	lost  func(error)
	owned bool // registered within this process, to its end
}

// Server is the proxy. Its zero value is not usable; see [NewServer].
type Server struct {
	opts   Options
	ctx    context.Context //nolint:containedctx // the one root of all waits, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // connections

	mu    sync.Mutex // guards the fields below
	vms   map[string]*vm
	gone  []*vm // unregistered and not lost yet, joined by Close
	conns map[net.Conn]struct{}
	ended bool
}

// NewServer returns a proxy without VMs. The caller must Close it.
func NewServer(opts Options) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		opts: opts, ctx: ctx, cancel: cancel,
		vms: make(map[string]*vm), conns: make(map[net.Conn]struct{}),
	}
}

// Close ends all connections and VMs' channels and joins all goroutines. It is
// idempotent. The VMs themselves live on.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	s.ended = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	all := s.gone
	for _, v := range s.vms {
		all = append(all, v)
	}
	s.vms, s.gone = map[string]*vm{}, nil
	s.mu.Unlock()
	for _, v := range all {
		v.close()
	}
	s.wg.Wait()
	if s.opts.Version1 != nil {
		s.opts.Version1.Close()
	}
	return nil
}

// Pauses after an error of Accept: too many open files end at some time.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Listen serves every connection that l accepts until l or the server is
// closed, and then returns nil. Errors are logged, and accepting is tried again.
func (s *Server) Listen(l net.Listener) error {
	stop := context.AfterFunc(s.ctx, func() { _ = l.Close() })
	defer stop()
	pause := minAcceptPause
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = minAcceptPause
			s.serve(conn, s.ServeAny)
			continue
		}
		if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		log.L.WithError(err).Error("accept client of the proxy")
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxAcceptPause)
		case <-s.ctx.Done():
			return nil
		}
	}
}

// serve serves a connection in a goroutine that Close joins. A connection to a
// closed server is closed.
func (s *Server) serve(conn net.Conn, serve func(net.Conn) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = conn.Close()
		return
	}
	s.wg.Go(func() {
		err := serve(conn)
		if err != nil && !errors.Is(err, net.ErrClosed) && !hasHungUp(err) {
			s.cutOff(err)
		}
	})
}

func (s *Server) cutOff(err error) {
	if s.opts.CutOff != nil {
		s.opts.CutOff(err)
		return
	}
	log.L.WithError(printable.Error(err, printable.MaxText)).Warn("client of the proxy was cut off")
}

// Serve serves one connection of version 2 until it ends, and closes it. It returns
// nil when the client closed it between frames. Errors are in the original's words.
func (s *Server) Serve(conn net.Conn) error { return s.serveFrames(conn, originalFailure, false) }

// ServeOwn is Serve for who runs the server, and knows what the original has no words for.
func (s *Server) ServeOwn(conn net.Conn) error { return s.serveFrames(conn, ownFailure, true) }

func (s *Server) serveFrames(conn net.Conn, failure failure, own bool) error {
	if err := s.enter(conn); err != nil {
		return err
	}
	number := s.opts.Tap.NewConn()
	c := &clientConn{server: s, conn: conn, w: proxyproto.NewWriter(&tapped{conn, s.opts.Tap, number}), failure: failure, own: own}
	defer func() {
		s.leave(conn)
		c.detach()
	}()
	r := proxyproto.NewReader(conn)
	r.Lenient = true // as the original; PROTOCOL.md says which rules that relaxes
	for {
		f, err := r.ReadFrame()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			s.opts.Tap.Frame(number, f)
			err = c.handle(f)
		}
		if errors.Is(err, errDisconnected) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tapped shows what is written to a connection, a frame at a time.
type tapped struct {
	io.Writer

	tap    *wiretap.Tap
	number uint32
}

// Write implements [io.Writer].
func (t *tapped) Write(frame []byte) (int, error) {
	t.tap.RawFrame(t.number, frame)
	return t.Writer.Write(frame)
}

// enter notes a connection. A closed server closes it.
func (s *Server) enter(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = conn.Close()
		return net.ErrClosed
	}
	s.conns[conn] = struct{}{}
	return nil
}

// leave closes a connection and forgets it.
func (s *Server) leave(conn net.Conn) {
	_ = conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// Pipe returns a connection to the server within this process, on which errors have their
// class. A closed server closes it.
func (s *Server) Pipe() (net.Conn, error) { return s.pipe(s.ServeOwn) }

// Dial is Pipe for who passes on what an original client asks for, and the errors with it.
func (s *Server) Dial() (net.Conn, error) { return s.pipe(s.Serve) }

func (s *Server) pipe(serve func(net.Conn) error) (net.Conn, error) {
	ours, theirs, err := socketpair.New()
	if err != nil {
		return nil, err
	}
	s.serve(theirs, serve)
	return ours, nil
}

// find returns a registered VM.
func (s *Server) find(id string) (*vm, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.vms[id]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("unknown containerID: %s", id)
}

// register opens the channels of a VM, which must exist already.
func (s *Server) register(ctx context.Context, r proxyproto.RegisterVM) (*vm, error) {
	if err := r.Validate(); err != nil {
		return nil, worded{err, "malformed RegisterVM command"}
	}
	if _, err := s.find(r.ContainerID); err == nil {
		return nil, fmt.Errorf("%s: container already registered", r.ContainerID)
	}
	var dialer net.Dialer
	ctl, err := dialer.DialContext(ctx, "unix", r.CtlSerial)
	if err != nil {
		return nil, worded{fmt.Errorf("connect to control port: %w", err), err.Error()}
	}
	tty, err := dialer.DialContext(ctx, "unix", r.IOSerial)
	if err != nil {
		_ = ctl.Close()
		return nil, worded{fmt.Errorf("connect to tty port: %w", err), err.Error()}
	}
	return s.add(ctx, r.ContainerID, ctl, tty, handlers{})
}

// RegisterConn registers a VM by the connections to its two ports, which become
// the server's: it closes them on error, too. It returns when the guest is
// ready, or ctx ends. event gets the events of a ccv2 guest and must not block;
// lost is called once when the connection to the guest has ended. Both may be
// nil.
func (s *Server) RegisterConn(ctx context.Context, id string, ctl, tty net.Conn, event func(hyperstart.EventMessage), lost func(error)) error {
	if _, err := s.find(id); err == nil {
		_, _ = ctl.Close(), tty.Close()
		return fmt.Errorf("%s: container already registered", id)
	}
	_, err := s.add(ctx, id, ctl, tty, handlers{event: event, lost: lost, owned: true})
	return err
}

// add waits for the guest and adds its VM to the registry.
func (s *Server) add(ctx context.Context, id string, ctl, tty net.Conn, h handlers) (*vm, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	v, err := openVM(ctx, id, ctl, tty, s.opts, h)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	_, exists := s.vms[id]
	ended := s.ended
	if !exists && !ended {
		s.vms[id] = v
		s.mu.Unlock()
		return v, nil
	}
	s.mu.Unlock()
	v.close()
	if ended {
		return nil, net.ErrClosed
	}
	return nil, fmt.Errorf("%s: container already registered", id)
}

// unregister removes the id. The channels and sessions live until the guest is
// lost or the server is closed, as with the original. A VM that this process has registered
// keeps its id: no client of a socket takes it from who needs it.
func (s *Server) unregister(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vms[id]
	if v == nil {
		return fmt.Errorf("unknown containerID: %s", id)
	}
	if v.owned {
		return nil
	}
	delete(s.vms, id)
	s.gone = append(slices.DeleteFunc(s.gone, (*vm).isLost), v)
	return nil
}

// Dialect returns what the guest of a registered VM speaks.
func (s *Server) Dialect(id string) (hyperstart.Dialect, error) {
	v, err := s.find(id)
	if err != nil {
		return hyperstart.DialectUnknown, err
	}
	return v.conn.Dialect(), nil
}

// isLost reports whether the VM's channels have ended and its sessions with them.
func (v *vm) isLost() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lost
}

// tokenFreed reports whether a token was disconnected a short while ago.
func (v *vm) tokenFreed(token string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Contains(v.freed, token)
}

// all returns the VMs that may have sessions.
func (s *Server) all() []*vm {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.AppendSeq(slices.Clone(s.gone), maps.Values(s.vms))
}

// Free frees a token as DisconnectShim does, though not behind what the client has sent before: stdin that
// still waits is dropped, and so is what comes.
func (s *Server) Free(token string) {
	for _, v := range s.all() {
		if found, err := v.find(token); err == nil {
			v.drop(found)
		}
	}
}

// claim finds the session of a token in any VM and gives it to the client.
func (s *Server) claim(token string, c *clientConn) (*session, error) {
	for _, v := range s.all() {
		if v.tokenFreed(token) {
			return nil, worded{errTokenClaimed, "token already claimed: " + token}
		}
		if found, err := v.find(token); err == nil {
			if err := found.attach(c); err != nil {
				return nil, err
			}
			return found, nil
		}
	}
	return nil, worded{errUnknownToken, "unknown token: " + token}
}
