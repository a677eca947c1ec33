package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
)

// maxForwards is how many connections are forwarded at once; each is a process
// of some MiB in the guest.
const maxForwards = 64

// acceptRetry is the pause after a connection that could not be taken.
const acceptRetry = time.Second

// forwarder brings connections to the loopback of the pod's namespace on the
// host, which is how the CRI forwards ports, to the loopback of the guest.
type forwarder struct {
	sandbox  *Sandbox
	loopback *network.Loopback
	free     chan struct{} // has room for one element per connection
	running  sync.WaitGroup
}

// forwardPorts begins to forward. A host that cannot do it has pods without
// that.
func (s *Sandbox) forwardPorts(ctx context.Context, pod bundle.Network) {
	// Where other processes live in the namespace, its loopback is theirs.
	if !pod.Own || s.dialect != hyperstart.DialectCCv2 {
		return
	}
	loopback, err := s.network.ListenLoopback()
	if err != nil {
		log.G(ctx).WithError(err).WithField("sandbox", s.opts.ID).Warn("ports of the pod cannot be forwarded")
		return
	}
	f := &forwarder{sandbox: s, loopback: loopback, free: make(chan struct{}, maxForwards)}
	s.undo.add(f.close)
	f.running.Go(func() { f.accept(context.WithoutCancel(ctx)) })
}

// close ends the forwarding. All sessions with the guest have ended before.
func (f *forwarder) close(context.Context) error {
	err := f.loopback.Close()
	f.running.Wait()
	return err
}

func (f *forwarder) accept(ctx context.Context) {
	for n := 0; ; n++ {
		conn, err := f.loopback.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			log.G(ctx).WithError(err).WithField("sandbox", f.sandbox.opts.ID).Error("forward ports")
			select { // too many descriptors, for example
			case <-time.After(acceptRetry):
				continue
			case <-f.sandbox.ended:
				return
			}
		}
		select {
		case f.free <- struct{}{}:
		default:
			_ = reset(conn)
			continue
		}
		f.running.Go(func() {
			defer func() { <-f.free }()
			if err := f.forward(ctx, conn, fmt.Sprintf("forward-%d", n)); err != nil {
				log.G(ctx).WithError(err).WithField("sandbox", f.sandbox.opts.ID).Info("forward a connection")
			}
		})
	}
}

// reset ends a connection as one that was refused, or was broken off.
func reset(conn *net.TCPConn) error { return errors.Join(conn.SetLinger(0), conn.Close()) }

// forward moves one connection to the guest's port of the same number.
func (f *forwarder) forward(ctx context.Context, conn *net.TCPConn, id string) error {
	s := f.sandbox
	session, err := s.client.Connect(ctx)
	if err != nil {
		return errors.Join(err, reset(conn))
	}
	defer func() { _ = session.Close() }()                    // a lost one is closed, too
	port := conn.LocalAddr().(*net.TCPAddr).AddrPort().Port() //nolint:forcetypeassert // of a TCP connection
	request := hyperstart.ExecCmdRequest{Container: s.opts.ID, Process: &hyperstart.Process{ID: id, Port: port}}
	if err := s.change(ctx, "execcmd", session.Token(), request); err != nil {
		return errors.Join(fmt.Errorf("port %d: %w", port, err), reset(conn))
	}
	var others sync.WaitGroup
	others.Go(session.Stderr.Discard)
	others.Go(func() {
		err := session.WriteStdin(ctx, conn)
		if err == nil {
			_ = session.CloseStdin() // the session's end is seen below
			err = awaitBroken(conn)
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			f.end(ctx, session) // unless it was the session that has ended first
		}
	})
	err = f.answer(ctx, conn, session)
	others.Wait()
	return err
}

// errBroken says that nobody is at the other end any more.
var errBroken = errors.New("broken off by the client")

// awaitBroken waits, when a client has sent all that it had to say, until it
// does not listen any more either, or this end was closed. A client that ends looks
// the same as one that waits for an answer, until the kernel asks it (keep-alive).
func awaitBroken(conn *net.TCPConn) error {
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
	return errBroken
}

// answer moves what comes back until the guest's end is closed.
func (f *forwarder) answer(ctx context.Context, conn *net.TCPConn, session *proxy.Session) error {
	if _, err := session.Stdout.WriteTo(conn); err != nil { // the client has gone
		session.Stdout.Discard()
		f.end(ctx, session)
	}
	<-session.Done()
	if status, err := session.Exit(); status != 0 || err != nil {
		return reset(conn)
	}
	return conn.Close()
}

// end breaks off the guest's end of a connection.
func (f *forwarder) end(ctx context.Context, session *proxy.Session) {
	ctx, cancel := context.WithTimeout(ctx, f.sandbox.opts.VM.CallTimeout)
	defer cancel()
	_ = session.Signal(ctx, killSignal) // it may have ended
}
