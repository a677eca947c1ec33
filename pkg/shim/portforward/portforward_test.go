package portforward

import (
	"errors"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start forwards what a loopback listener accepts to a guest in memory.
func start(t *testing.T) (f *Forwarder, guest *guesttest.Guest, address *net.TCPAddr) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	guest = guesttest.New(guesttest.Options{})
	f = Start(t.Context(), l, guest)
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	address, _ = l.Addr().(*net.TCPAddr)
	return f, guest, address
}

// connect makes a connection, and waits for its process in the guest.
func connect(t *testing.T, guest *guesttest.Guest, address *net.TCPAddr) (*net.TCPConn, *guesttest.Process) {
	t.Helper()
	conn, err := net.DialTCP("tcp4", nil, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	process := guest.Forwarded(t.Context(), uint16(address.Port))
	if process == nil {
		t.Fatal("the guest got no connection")
	}
	return conn, process
}

// TestForward moves both directions, and the end of the guest's side.
func TestForward(t *testing.T) {
	_, guest, address := start(t)
	conn, process := connect(t, guest, address)
	if _, err := conn.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := process.WaitStdin(t.Context()); err != nil || got != "question" {
		t.Errorf("the guest got %q, %v", got, err)
	}
	process.Stdout("answer")
	process.Exit(0)
	if got, err := io.ReadAll(conn); err != nil || string(got) != "answer" {
		t.Errorf("the client got %q, %v", got, err)
	}
}

// TestResetByTheGuest is one for the client.
func TestResetByTheGuest(t *testing.T) {
	_, guest, address := start(t)
	conn, process := connect(t, guest, address)
	process.Exit(1)
	if _, err := io.ReadAll(conn); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client got %v", err)
	}
}

// TestRefused: a port on which nothing listens in the guest.
func TestRefused(t *testing.T) {
	_, guest, address := start(t)
	guest.Fail("Forward", errors.New("connection refused"))
	conn, err := net.DialTCP("tcp4", nil, address)
	if err == nil { // the reset may come as early as that
		_, err = io.ReadAll(conn)
		_ = conn.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client got %v", err)
	}
}

// TestClientThatDoesNotRead cannot keep the forwarder from closing.
func TestClientThatDoesNotRead(t *testing.T) {
	f, guest, address := start(t)
	conn, process := connect(t, guest, address)
	process.Stdout(string(make([]byte, 32<<20))) // more than all buffers of the kernel
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil { // the answer is under way
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseResets connections that are open and idle.
func TestCloseResets(t *testing.T) {
	f, guest, address := start(t)
	conn, _ := connect(t, guest, address)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client got %v", err)
	}
}
