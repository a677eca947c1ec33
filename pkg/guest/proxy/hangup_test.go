package proxy

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// waitConns waits until the server has n connections.
func waitConns(t *testing.T, s *Server, n int) {
	t.Helper()
	for range 1 << 22 {
		s.mu.Lock()
		got := len(s.conns)
		s.mu.Unlock()
		if got == n {
			return
		}
		runtime.Gosched()
	}
	t.Fatalf("not %d connections", n)
}

// TestHangUpEndsTheCommand: clients that hang up while the guest does not
// answer leave nothing behind, so that others can still send commands.
func TestHangUpEndsTheCommand(t *testing.T) {
	s, g := newServerWith(t, hyperstart.DialectCCv2, Options{}, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.DumpStacks {
			return 0, nil // never answered
		}
		return hyperstart.Ack, nil
	})
	frames := client.NewFrames("pod", s.Pipe)
	const many = 300 // more than may be under way
	for i := range many {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := frames.Hyper(ctx, "dumpstacks", "", nil)
			done <- err
		}()
		g.WaitCommand(hyperstart.DumpStacks, i+1)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	waitConns(t, s, 0)
	if _, err := frames.Hyper(t.Context(), "ping", "", nil); err != nil {
		t.Error(err)
	}
}

// TestHangUpEndsWaits for stdin and for a start.
func TestHangUpEndsWaits(t *testing.T) {
	s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
	peer := runtimePeer(t, s)
	token := peer.token()
	shimPeer(t, s, token).stdin("never read")
	for name, frame := range map[string]proxyproto.Hyper{
		"stdin": hyper(proxyproto.HyperDrainStdin, token, "{}"),
		"claim": hyper("newcontainer", peer.token(), newProcess),
	} {
		conn, err := s.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"})
		p.send(proxyproto.CmdHyper, frame)
		t.Log(name)
		_ = conn.Close()
		waitConns(t, s, 2)
	}
}

// TestHalfCloseEndsNothing: a client that has sent its last command may close
// its side, and gets the answer.
func TestHalfCloseEndsNothing(t *testing.T) {
	hold := make(chan struct{})
	s, g := newServerWith(t, hyperstart.DialectCCv2, Options{}, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.GuestInfo {
			<-hold
		}
		return hyperstart.Ack, []byte(`"late"`)
	})
	conn, err := s.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, conn)
	p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"})
	p.send(proxyproto.CmdHyper, hyper("guestinfo", "", ""))
	p.send(proxyproto.CmdHyper, hyper("ping", "", "")) // what was sent ahead stays
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	g.WaitCommand(hyperstart.GuestInfo, 1)
	close(hold)
	for range 2 {
		if answer, failure := p.response(proxyproto.CmdHyper); answer != `"late"` || failure != "" {
			t.Errorf("%q, %q", answer, failure)
		}
	}
	p.expect("hung up")
}

// TestHangUpWhileAProcessStarts: the shim has its process all the same.
func TestHangUpWhileAProcessStarts(t *testing.T) {
	hold := make(chan struct{})
	s, g := newServerWith(t, hyperstart.DialectCCv2, Options{}, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.NewContainer {
			<-hold
		}
		return hyperstart.Ack, nil
	})
	token := runtimePeer(t, s).token()
	shim := shimPeer(t, s, token)
	conn, err := s.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, conn)
	p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"})
	p.send(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
	g.WaitCommand(hyperstart.NewContainer, 1)
	_ = conn.Close()
	close(hold)
	waitConns(t, s, 2)
	shim.must(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10})
	g.WaitCommand(hyperstart.KillContainer, 1)
}

// TestLastSignal: the original's shim that is killed has a child of its send SIGKILL in its place, on the
// same connection, which ends at once. The guest may be busy then.
func TestLastSignal(t *testing.T) {
	busy := make(chan struct{})
	s, g := newServerWith(t, hyperstart.DialectClearGo, Options{}, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.Ping {
			<-busy
		}
		return hyperstart.Ack, nil
	})
	runtime, other := runtimePeer(t, s), runtimePeer(t, s)
	for n := range 20 {
		token := runtime.token()
		ours, theirs := socketPair(t)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(theirs) // nobody reads the last answer
		}()
		w := proxyproto.NewWriter(ours)
		if err := w.WriteCommand(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); err != nil {
			t.Fatal(err)
		}
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		other.send(proxyproto.CmdHyper, hyper("ping", "", ""))
		g.WaitCommand(hyperstart.Ping, n+1)
		if err := w.WriteCommand(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 9}); err != nil {
			t.Fatal(err)
		}
		_ = ours.Close()
		busy <- struct{}{}
		if _, failure := other.response(proxyproto.CmdHyper); failure != "" {
			t.Fatal(failure)
		}
		<-served
		g.Mu.Lock()
		kills := 0
		for _, c := range g.Commands {
			if c.Code == hyperstart.KillContainer {
				kills++
			}
		}
		g.Mu.Unlock()
		if kills != n+1 {
			t.Fatalf("%d signals have arrived, want %d", kills, n+1)
		}
	}
}
