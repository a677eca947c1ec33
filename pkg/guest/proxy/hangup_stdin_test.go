package proxy

import (
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestHangUpBehindStdin: a shim that dies with more stdin on its way than its process reads is noticed: what it has
// sent last is carried out, the token can be claimed, and no stdin that was sent whole is lost.
func TestHangUpBehindStdin(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectCCv2, Options{})
	runtime := runtimePeer(t, s)
	token := runtime.token()
	ours, theirs := socketPair(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(theirs) }()
	w := proxyproto.NewWriter(ours)
	if err := w.WriteCommand(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); err != nil {
		t.Fatal(err)
	}
	runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
	frames := proxyproto.NewReader(ours)
	if f, err := frames.ReadFrame(); err != nil || f.Error {
		t.Fatalf("%s, %v", f, err)
	}
	data := make([]byte, 64<<10)
	sent := 0
	for range (hyperstart.CreditWindow + stdinBacklog) / len(data) { // the process does not read: it grants nothing
		if err := w.WriteStream(proxyproto.StreamStdin, data); err != nil {
			t.Fatal(err)
		}
		sent += len(data)
	}
	if err := w.WriteStream(proxyproto.StreamStdin, data); err != nil {
		t.Fatal(err)
	}
	sent += len(data)
	if err := w.WriteCommand(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 9}); err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	g.WaitCommand(hyperstart.KillContainer, 1)
	if err := <-served; err != nil && !hasHungUp(err) {
		t.Error(err)
	}
	again := shimPeer(t, s, token)
	again.stdin("")
	granted := hyperstart.CreditWindow
	for ; granted < sent; granted += hyperstart.CreditWindow {
		g.Input(granted, false)
		if _, err := g.TTY.Write(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 3, Bytes: hyperstart.CreditWindow})); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(g.Input(sent, true)); got != sent {
		t.Errorf("the process got %d bytes of %d", got, sent)
	}
}

// TestHangUpsBehindStdin: clients that hang up one after the other, each with its stdin on its way, are no way around
// the bound.
func TestHangUpsBehindStdin(t *testing.T) {
	s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
	token := runtimePeer(t, s).token() // its process never starts
	session, err := pod(t, s).find(token)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 3 * maxStdinBacklog / (100 << 10) {
		ours, theirs := socketPair(t)
		served := make(chan error, 1)
		go func() { served <- s.Serve(theirs) }()
		w := proxyproto.NewWriter(ours)
		if err := w.WriteCommand(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteStream(proxyproto.StreamStdin, make([]byte, 60<<10)); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteStream(proxyproto.StreamStdin, make([]byte, 60<<10)); err != nil {
			t.Fatal(err)
		}
		_ = ours.Close()
		if err := <-served; err != nil && !hasHungUp(err) {
			refused++
		}
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	if n := session.stdin.bytes; refused == 0 || n < maxStdinBacklog || n > maxStdinBacklog+(64<<10) {
		t.Errorf("%d bytes are kept, %d clients were told", n, refused)
	}
}
