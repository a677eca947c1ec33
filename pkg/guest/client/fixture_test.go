package client_test

import (
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newProcess is the data of a newcontainer command.
const newProcess = `{"id":"c","process":{"id":"init","args":["sh"]}}`

// reply answers a command of a scripted guest.
type reply = func(hyperstart.Code, []byte) (hyperstart.Code, []byte)

// newServer returns a server with one registered VM, "pod", over pipes, so
// that it works inside of a synctest bubble.
func newServer(t testing.TB, dialect hyperstart.Dialect, answer reply) (*proxy.Server, *wiretest.Guest) {
	t.Helper()
	s := proxy.NewServer(proxy.Options{Dialect: dialect})
	g, ctl, tty := newGuest(t, answer)
	t.Cleanup(func() {
		_ = s.Close()
		g.Close()
	})
	if err := s.RegisterConn(t.Context(), "pod", ctl, tty, nil, nil); err != nil {
		t.Fatal(err)
	}
	return s, g
}

// newGuest returns a guest that runs, and the host's ends of its ports.
func newGuest(t testing.TB, answer reply) (g *wiretest.Guest, ctl, tty net.Conn) {
	t.Helper()
	ctl, guestCtl := net.Pipe()
	tty, guestTTY := net.Pipe()
	g = wiretest.New(t, guestCtl, guestTTY)
	g.Reply = answer
	g.Run(true)
	return g, ctl, tty
}

// dialer is the dial function of a client.
func dialer(s *proxy.Server) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _ = s.ServeOwn(theirs) }()
		return ours, nil
	}
}
