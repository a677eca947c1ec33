package dnsrelay

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest records what it is told.
type guest struct {
	servers chan []string
	answers chan hyperstart.DNSMessage
	err     error
}

func newGuest() *guest {
	return &guest{servers: make(chan []string, 8), answers: make(chan hyperstart.DNSMessage, 128)}
}

func (g *guest) RelayDNS(_ context.Context, r hyperstart.RelayDNSRequest) error {
	g.servers <- r.Servers
	return g.err
}

func (g *guest) AnswerDNS(_ context.Context, a hyperstart.DNSMessage) error {
	g.answers <- a
	return nil
}

// answer waits for the next one.
func (g *guest) answer(t *testing.T) hyperstart.DNSMessage {
	t.Helper()
	select {
	case a := <-g.answers:
		return a
	case <-time.After(2 * patience):
		t.Fatal("no answer")
		return hyperstart.DNSMessage{}
	}
}

// told returns what the guest was told last, nil for nothing.
func (g *guest) told() []string {
	select {
	case servers := <-g.servers:
		return servers
	default:
		return nil
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestParse(t *testing.T) {
	text := `# nameserver 127.0.0.1
nameserver 127.0.0.11
 nameserver	127.0.0.53 # comment
nameserver 192.0.2.1
nameserver ::1
nameserver 127.0.0.11
nameserver 127.1
nameserver
options ndots:0
search nameserver 127.0.0.2
`
	got, err := parse(strings.NewReader(text))
	want := []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.53")}
	if err != nil || !cmp.Equal(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("servers %v, %v", got, err)
	}
}

// TestReadServers: what a container has put in the place of the file is not waited for.
func TestReadServers(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large")
	write(t, large, strings.Repeat("#\n", maxFile)+"nameserver 127.0.0.1\n")
	for _, path := range []string{fifo, dir, filepath.Join(dir, "none"), "", os.DevNull, large} {
		if got, err := readServers(path); len(got) > 0 || err != nil {
			t.Errorf("%q: %v, %v", path, got, err)
		}
	}
}

// TestRefresh: the guest is told of each server once, and again when it could not do it.
func TestRefresh(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	g := newGuest()
	r := New(t.Context(), nil, path)
	refresh := func(text string, want ...string) {
		t.Helper()
		write(t, path, text)
		r.Refresh(t.Context())
		if got := g.told(); !cmp.Equal(want, got) {
			t.Errorf("with %q the guest was told of %q, want %q", text, got, want)
		}
	}
	refresh("nameserver 127.0.0.2") // there is no guest yet
	r.Start(g)
	refresh("nameserver 192.0.2.1")
	refresh("nameserver 127.0.0.2\n", "127.0.0.2")
	refresh("nameserver 127.0.0.2\n")
	g.err = errors.New("not now")
	refresh("nameserver 127.0.0.2\nnameserver 127.0.0.3\n", "127.0.0.3")
	g.err = nil
	refresh("nameserver 127.0.0.2\nnameserver 127.0.0.3\n", "127.0.0.3")
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	refresh("nameserver 127.0.0.4\n")
	r.Ask(question(1, "127.0.0.2"))
}

func question(id uint64, server string) hyperstart.DNSMessage {
	return hyperstart.DNSMessage{ID: id, Server: server, Message: append([]byte{0x12, 0x34, 1, 0}, make([]byte, 20)...)}
}

// namespace makes a network namespace with a loopback.
func namespace(t *testing.T) *os.File {
	t.Helper()
	ns := networktest.New(t)
	lo, err := ns.LinkByName("lo")
	if err == nil {
		err = ns.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	netns, err := os.Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	return netns
}

// server makes a namespace with a name server for both protocols at an address, which
// answers with the question and a text.
func server(t *testing.T, address string) *os.File {
	t.Helper()
	netns := namespace(t)
	var udp net.PacketConn
	var tcp net.Listener
	err := osthread.RunInNetNS(netns, func() (err error) {
		var lc net.ListenConfig
		udp, err = lc.ListenPacket(t.Context(), "udp4", address)
		if err == nil {
			tcp, err = lc.Listen(t.Context(), "tcp4", address)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	t.Cleanup(func() {
		_, _ = udp.Close(), tcp.Close()
		<-done
		<-done
	})
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, maxMessage)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte("no answer to the question"), from) // of another id
			_, _ = udp.WriteTo(append(buf[:n], " by udp"...), from)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			_, _ = io.ReadFull(conn, length[:])
			message := make([]byte, binary.BigEndian.Uint16(length[:]))
			_, _ = io.ReadFull(conn, message)
			message = append(message, " by tcp"...)
			_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
			_ = conn.Close()
		}
	}()
	return netns
}

// start relays to 127.0.0.11.
func start(t *testing.T, netns *os.File) (*Relay, *guest) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, "nameserver 127.0.0.11\n")
	g := newGuest()
	r := New(t.Context(), netns, path)
	t.Cleanup(func() { _ = r.Close() })
	r.Start(g)
	r.Refresh(t.Context())
	return r, g
}

// TestAsk: both protocols, each question with its own answer.
func TestAsk(t *testing.T) {
	r, g := start(t, server(t, "127.0.0.11:53"))
	for id, tcp := range []bool{false, true} {
		q := question(uint64(id)+7, "127.0.0.11")
		q.TCP = tcp
		r.Ask(q)
		want := string(q.Message) + map[bool]string{false: " by udp", true: " by tcp"}[tcp]
		if a := g.answer(t); a.ID != q.ID || string(a.Message) != want {
			t.Errorf("tcp %v: answer %d %q", tcp, a.ID, a.Message)
		}
	}
}

// slowGuest works on an answer until it is told to go on.
type slowGuest struct {
	*guest
	working atomic.Int64
	goOn    chan struct{}
}

func (g *slowGuest) AnswerDNS(context.Context, hyperstart.DNSMessage) error {
	g.working.Add(1)
	<-g.goOn
	return nil
}

// TestTurns: many answers at once leave the guest room for other commands.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(t.Context(), nil, "")
		g := &slowGuest{goOn: make(chan struct{})}
		for range maxQuestions {
			go func() { _ = r.pass(g, hyperstart.DNSMessage{}) }()
		}
		synctest.Wait()
		if n := g.working.Load(); n != maxAnswers {
			t.Errorf("%d answers at once", n)
		}
		close(g.goOn)
		synctest.Wait()
		if n := g.working.Load(); n != maxQuestions {
			t.Errorf("%d answers in all", n)
		}
	})
}

// TestNoServer: the guest learns that nobody is there.
func TestNoServer(t *testing.T) {
	r, g := start(t, server(t, "127.0.0.11:5353"))
	for _, tcp := range []bool{false, true} {
		q := question(1, "127.0.0.11")
		q.TCP = tcp
		r.Ask(q)
		if a := g.answer(t); len(a.Message) != len(q.Message) || a.Message[2] != 0x81 || a.Message[3] != 2 {
			t.Errorf("tcp %v: answer %x", tcp, a.Message)
		}
	}
}

// TestNotAsked: a guest asks what it was told of, and nothing else.
func TestNotAsked(t *testing.T) {
	netns := server(t, "127.0.0.12:53")
	r, g := start(t, netns)
	r.Ask(question(1, "127.0.0.12"))
	r.Ask(question(2, "127.0.0.12:53"))
	r.Ask(question(3, "localhost"))
	r.Ask(hyperstart.DNSMessage{ID: 4, Server: "127.0.0.11", Message: []byte("short")})
	r.Ask(hyperstart.DNSMessage{ID: 5, Server: "127.0.0.11", Message: make([]byte, maxMessage+1)})
	r.Ask(question(6, "127.0.0.11")) // comes to an end, with a failure
	if a := g.answer(t); a.ID != 6 {
		t.Errorf("answer to question %d", a.ID)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	select {
	case a := <-g.answers:
		t.Errorf("answer to question %d", a.ID)
	default:
	}
}

// TestClose does not wait for a server that says nothing.
func TestClose(t *testing.T) {
	netns := namespace(t)
	var silent net.PacketConn
	err := osthread.RunInNetNS(netns, func() (err error) {
		silent, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp4", "127.0.0.11:53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r, _ := start(t, netns)
	for id := range uint64(2 * maxQuestions) { // more than there may be
		r.Ask(question(id, "127.0.0.11"))
	}
	buf := make([]byte, maxMessage)
	if _, _, err := silent.ReadFrom(buf); err != nil { // one is under way
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
