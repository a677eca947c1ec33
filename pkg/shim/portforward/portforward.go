package portforward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// maxConnections is how many connections are forwarded at once; each is a
// process of some MiB in the guest. Further ones are reset.
const maxConnections = 64

// acceptRetry is the pause after a connection that could not be accepted.
const acceptRetry = time.Second

// resetLimit bounds the wait for the guest when a connection is reset there.
const resetLimit = 10 * time.Second

// Guest connects sessions to ports of its loopback.
type Guest interface {
	OpenSession(ctx context.Context) (client.Session, error)
	Forward(ctx context.Context, s client.Session, port uint16) error
	Signal(ctx context.Context, s client.Session, t client.Target, signal int) error
}

// Listener accepts TCP connections whose local address is the one that the
// client asked for.
type Listener interface {
	AcceptTCP() (*net.TCPConn, error)
	Close() error
}

// Forwarder forwards the connections of one listener.
type Forwarder struct {
	guest    Guest
	listener Listener
	ctx      context.Context //nolint:containedctx // of all connections, ended by Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	conns  map[*net.TCPConn]struct{}
	closed bool
}

// Start forwards what l accepts, until Close. l becomes the Forwarder's.
func Start(ctx context.Context, l Listener, guest Guest) *Forwarder {
	f := &Forwarder{guest: guest, listener: l, conns: make(map[*net.TCPConn]struct{})}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.wg.Go(f.accept)
	return f
}

// Close ends the forwarding: connections that are open are reset. It returns
// when all goroutines have ended; they wait for the guest as long as its
// sessions last, so a guest that does not answer has to be disconnected before.
func (f *Forwarder) Close() error {
	err := f.listener.Close()
	f.cancel()
	f.mu.Lock()
	f.closed = true
	for conn := range f.conns {
		_ = reset(conn) // its client may not read, and would hold up the writer
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

func (f *Forwarder) accept() {
	for {
		conn, err := f.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.G(f.ctx).WithError(err).Error("forward ports: accept")
			select { // too many descriptors, for example
			case <-time.After(acceptRetry):
				continue
			case <-f.ctx.Done():
				return
			}
		}
		if !f.add(conn) {
			_ = reset(conn)
			continue
		}
		f.wg.Go(func() {
			defer f.remove(conn)
			if err := f.forward(conn); err != nil && f.ctx.Err() == nil {
				log.G(f.ctx).WithError(err).Info("forward a connection")
			}
		})
	}
}

// add registers a connection, unless there are too many.
func (f *Forwarder) add(conn *net.TCPConn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.conns) >= maxConnections {
		return false
	}
	f.conns[conn] = struct{}{}
	return true
}

func (f *Forwarder) remove(conn *net.TCPConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, conn)
}

// reset ends a connection as one that was refused, or was aborted.
func reset(conn *net.TCPConn) error { return errors.Join(conn.SetLinger(0), conn.Close()) }

// forward moves one connection to the guest's port of the same number.
func (f *Forwarder) forward(conn *net.TCPConn) error {
	session, err := f.guest.OpenSession(f.ctx)
	if err != nil {
		return errors.Join(err, reset(conn))
	}
	defer func() { _ = session.Close() }()                    // a lost one is closed, too
	port := conn.LocalAddr().(*net.TCPAddr).AddrPort().Port() //nolint:forcetypeassert // of a TCP connection
	if err := f.guest.Forward(f.ctx, session, port); err != nil {
		return errors.Join(fmt.Errorf("port %d: %w", port, err), reset(conn))
	}
	var others sync.WaitGroup
	others.Go(session.Stderr().Discard)
	others.Go(func() {
		err := session.WriteStdin(f.ctx, conn)
		if err == nil {
			_ = session.CloseStdin() // the session's end is seen below
			err = awaitReset(conn)
		}
		if err != nil {
			select {
			case <-session.Done(): // it was the guest's end that came first
			default:
				f.resetInGuest(session)
			}
		}
	})
	err = f.copyAnswer(conn, session)
	others.Wait()
	return err
}

// errReset says that nothing listens at the other end any more.
var errReset = errors.New("reset by the client")

// awaitReset waits, when a client has sent everything, until it does not listen
// any more either, or this end was closed. A client that ends looks the same as
// one that waits for an answer, until the kernel asks it (keep-alive).
func awaitReset(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	const tcpClose = 7 // TCP_CLOSE of linux/tcp_states.h
	err = raw.Read(func(fd uintptr) bool {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		return err != nil || info.State == tcpClose
	})
	if err != nil {
		return err
	}
	return errReset
}

// copyAnswer moves what comes back until the guest's end is closed.
func (f *Forwarder) copyAnswer(conn *net.TCPConn, session client.Session) error {
	if _, err := session.Stdout().WriteTo(conn); err != nil { // the client has gone
		session.Stdout().Discard()
		f.resetInGuest(session)
	}
	<-session.Done()
	if status, err := session.Exit(); status != 0 || err != nil {
		return reset(conn)
	}
	return conn.Close()
}

// resetInGuest resets the guest's end of a connection.
func (f *Forwarder) resetInGuest(session client.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), resetLimit)
	defer cancel()
	_ = f.guest.Signal(ctx, session, client.Target{}, int(unix.SIGKILL)) // it may have ended
}
