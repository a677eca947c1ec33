package dnsrelay

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// fixture is a relay whose sockets are asked directly.
type fixture struct {
	*Relay
	questions chan hyperstart.DNSMessage
	udp, tcp  uint16
	turned    int
	err       error
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{questions: make(chan hyperstart.DNSMessage, 2*maxWaiting)}
	f.Relay = New("", func(q hyperstart.DNSMessage) { f.questions <- q })
	f.turn = func(_ netip.Addr, udp, tcp uint16) ([]link.Link, error) {
		f.udp, f.tcp = udp, tcp
		f.turned++
		return nil, f.err
	}
	return f
}

func (f *fixture) serve(t *testing.T, servers ...string) {
	t.Helper()
	if err := f.Serve(t.Context(), hyperstart.RelayDNSRequest{Servers: servers}); err != nil {
		t.Fatal(err)
	}
}

// dial connects to a socket of the relay.
func (f *fixture) dial(t *testing.T, network string) net.Conn {
	t.Helper()
	port := map[string]uint16{"udp4": f.udp, "tcp4": f.tcp}[network]
	conn, err := net.Dial(network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.11"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func message(text string) []byte { return append(make([]byte, header), text...) }

func (f *fixture) answer(t *testing.T, q hyperstart.DNSMessage, text string) {
	t.Helper()
	if err := f.Answer(t.Context(), hyperstart.DNSMessage{ID: q.ID, Message: message(text)}); err != nil {
		t.Fatal(err)
	}
}

// TestUDP: answers come to who has asked, in any order, and once.
func TestUDP(t *testing.T) {
	f := newFixture(t)
	f.serve(t, "127.0.0.11")
	a, b := f.dial(t, "udp4"), f.dial(t, "udp4")
	ask := func(conn net.Conn, text string) hyperstart.DNSMessage {
		t.Helper()
		for _, m := range [][]byte{[]byte("too short"), message(text)} {
			if _, err := conn.Write(m); err != nil {
				t.Fatal(err)
			}
		}
		q := <-f.questions
		if q.Server != "127.0.0.11" || q.TCP || string(q.Message) != string(message(text)) {
			t.Errorf("question %+v, want %q", q, text)
		}
		return q
	}
	first, second := ask(a, "a"), ask(b, "b")
	f.answer(t, second, "for b")
	f.answer(t, second, "for b again")
	f.answer(t, first, "for a")
	buf := make([]byte, maxMessage)
	for conn, want := range map[net.Conn]string{a: "for a", b: "for b"} {
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != string(message(want)) {
			t.Errorf("answer %q, %v, want %q", buf[:n], err, want)
		}
	}
	f.answer(t, ask(b, "c"), "for c") // the next one is not what came twice
	if n, err := b.Read(buf); err != nil || string(buf[:n]) != string(message("for c")) {
		t.Errorf("answer %q, %v", buf[:n], err)
	}
}

// TestTCP: several questions in one connection, and one that is cut.
func TestTCP(t *testing.T) {
	f := newFixture(t)
	f.serve(t, "127.0.0.11")
	conn := f.dial(t, "tcp4")
	for _, text := range []string{"first", "second"} {
		m := message(text)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
			t.Fatal(err)
		}
		q := <-f.questions
		if !q.TCP || string(q.Message) != string(m) {
			t.Errorf("question %+v", q)
		}
		f.answer(t, q, "to "+text)
		want := message("to " + text)
		got := make([]byte, 2+len(want))
		if _, err := io.ReadFull(conn, got); err != nil || int(binary.BigEndian.Uint16(got)) != len(want) || string(got[2:]) != string(want) {
			t.Errorf("answer %q, %v", got, err)
		}
	}
	cut := f.dial(t, "tcp4").(*net.TCPConn)
	if _, err := cut.Write([]byte{0, 20, 1, 2}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cut.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(cut); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestSlowQuestion: who takes long to ask has as much time for the answer as others.
func TestSlowQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		questions := make(chan hyperstart.DNSMessage, 1)
		f := &fixture{Relay: New("", func(q hyperstart.DNSMessage) { questions <- q })}
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- f.exchange("127.0.0.11", server) }()
		m := message("slow")
		<-time.After(patience - time.Second)
		if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
			t.Fatal(err)
		}
		q := <-questions
		<-time.After(patience / 2)
		f.answer(t, q, "answer")
		got := make([]byte, 2+header+len("answer"))
		if _, err := io.ReadFull(client, got); err != nil || string(got[2:]) != string(message("answer")) {
			t.Errorf("answer %q, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestServe: what is no server is refused, what is served is not served twice, and what
// could not be is tried again.
func TestServe(t *testing.T) {
	f := newFixture(t)
	for _, bad := range []string{"", "192.0.2.1", "::1", "::ffff:127.0.0.1", "127.0.0.1:53"} {
		if err := f.Serve(t.Context(), hyperstart.RelayDNSRequest{Servers: []string{bad}}); err == nil {
			t.Errorf("%q was served", bad)
		}
	}
	f.err = errors.New("no such program")
	if err := f.Serve(t.Context(), hyperstart.RelayDNSRequest{Servers: []string{"127.0.0.11"}}); !errors.Is(err, f.err) {
		t.Errorf("error %v", err)
	}
	f.err = nil
	f.serve(t, "127.0.0.11", "127.0.0.12")
	f.serve(t, "127.0.0.12", "127.0.0.11")
	if f.turned != 3 {
		t.Errorf("turned %d times", f.turned)
	}
	var many []string
	for i := range maxServers {
		many = append(many, netip.AddrFrom4([4]byte{127, 1, 0, byte(i)}).String())
	}
	if err := f.Serve(t.Context(), hyperstart.RelayDNSRequest{Servers: many}); err == nil {
		t.Error("more servers than there may be")
	}
}

// TestMaxWaiting: a host that does not answer does not make the guest remember without
// end, and an answer makes room.
func TestMaxWaiting(t *testing.T) {
	f := newFixture(t)
	for range maxWaiting + 7 {
		f.post("127.0.0.11", false, message(""), func([]byte) {})
	}
	if len(f.questions) != maxWaiting {
		t.Errorf("%d questions", len(f.questions))
	}
	f.answer(t, <-f.questions, "")
	f.post("127.0.0.11", false, message(""), func([]byte) {})
	if len(f.questions) != maxWaiting {
		t.Errorf("%d questions after an answer", len(f.questions))
	}
}
