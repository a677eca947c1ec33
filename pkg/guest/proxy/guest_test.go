package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer returns a server with one registered VM, "pod", over pipes, so
// that it works inside of a synctest bubble.
func newServer(t testing.TB, dialect hyperstart.Dialect, opts Options) (*Server, *wiretest.Guest) {
	t.Helper()
	return newServerWith(t, dialect, opts, nil)
}

func newServerWith(t testing.TB, dialect hyperstart.Dialect, opts Options, reply func(hyperstart.Code, []byte) (hyperstart.Code, []byte)) (*Server, *wiretest.Guest) {
	t.Helper()
	return newServerFor(t, dialect, opts, handlers{}, reply)
}

func newServerFor(t testing.TB, dialect hyperstart.Dialect, opts Options, h handlers, reply func(hyperstart.Code, []byte) (hyperstart.Code, []byte)) (*Server, *wiretest.Guest) {
	t.Helper()
	ctl, guestCtl := net.Pipe()
	tty, guestTTY := net.Pipe()
	g := wiretest.New(t, guestCtl, guestTTY)
	g.Reply = reply
	g.Run(true)
	opts.Dialect = dialect
	s := NewServer(opts)
	v, err := openVM(context.Background(), "pod", ctl, tty, s.opts, h)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.vms[v.id] = v
	s.mu.Unlock()
	t.Cleanup(func() {
		_ = s.Close()
		g.Close()
	})
	return s, g
}

// pod returns the registered VM.
func pod(t testing.TB, s *Server) *vm {
	t.Helper()
	v, err := s.find("pod")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// dial connects to the server.
func dial(s *Server) net.Conn {
	ours, theirs := net.Pipe()
	go func() { _ = s.Serve(theirs) }()
	return ours
}

// isEOF reports whether an error says that the other side has hung up.
func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed)
}
