package proxy

import (
	"math"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestRoomForOwnSessions: a client that takes all tokens and hangs up does not keep who runs the server from
// starting processes, and a refused request costs no token.
func TestRoomForOwnSessions(t *testing.T) {
	s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
	greedy := runtimePeer(t, s)
	ask := func(p *peer, n int) string {
		_, failure := p.ask(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod", NumIOStreams: n})
		return failure
	}
	for n, want := range map[int]string{
		maxSessions + 1: "vm pod has 0 sessions already, 4097 more are too many",
		math.MaxInt:     "vm pod has 0 sessions already, 9223372036854775807 more are too many",
		-1:              "", 0: "",
	} {
		if got := ask(greedy, n); got != want || len(pod(t, s).bySeq) != 0 {
			t.Errorf("%d tokens: %q, want %q; %d sessions", n, got, want, len(pod(t, s).bySeq)/2)
		}
	}
	if got := ask(greedy, maxSessions); got != "" {
		t.Error(got)
	}
	_ = greedy.conn.Close()
	other := runtimePeer(t, s)
	if got := ask(other, 1); got != "vm pod has 4096 sessions already" {
		t.Errorf("one more: %q", got)
	}
	if _, got := other.ask(proxyproto.CmdHyper, hyper("newcontainer", "", newProcess)); got != "vm pod has 4096 sessions already" {
		t.Errorf("a process without a token: %q", got)
	}
	conn, err := s.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	own := newPeer(t, conn)
	if got := ask(own, maxOwnSessions-maxSessions); got != "" {
		t.Errorf("its own: %q", got)
	}
	if got := ask(own, 1); got != "vm pod has 8192 sessions already" {
		t.Errorf("its own: %q", got)
	}
}
