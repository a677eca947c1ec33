package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// received is a command that a fake guest got.
type received struct {
	code    hyperstart.Code
	payload string
}

// fakeGuest is a guest at the other end of both ports. It reads both all the
// time and acknowledges every command, unless reply says otherwise.
type fakeGuest struct {
	t        testing.TB
	ctl, tty net.Conn
	wg       sync.WaitGroup
	// reply, when set, answers a command; Code 0 gives no answer at all.
	reply func(code hyperstart.Code, payload []byte) (hyperstart.Code, []byte)

	mu       sync.Mutex // guards the fields below and the order of control messages
	cond     *sync.Cond // on mu
	commands []received
	stdin    map[uint64][][]byte // messages by sequence number
	credits  map[uint64]int      // granted by the host, without the initial window
	ended    bool
}

// newFakeGuest starts a guest on its ends of the ports.
func newFakeGuest(t testing.TB, ctl, tty net.Conn) *fakeGuest {
	g := &fakeGuest{t: t, ctl: ctl, tty: tty, stdin: make(map[uint64][][]byte), credits: make(map[uint64]int)}
	g.cond = sync.NewCond(&g.mu)
	return g
}

// run serves until the host hangs up. ready says READY first.
func (g *fakeGuest) run(ready bool) {
	g.wg.Go(func() {
		if ready {
			g.say(hyperstart.Ready, nil)
		}
		g.readCtl()
	})
	g.wg.Go(g.readTTY)
}

// close hangs up, which is what the host sees of a VM that is lost.
func (g *fakeGuest) close() {
	_, _ = g.ctl.Close(), g.tty.Close()
	g.wg.Wait()
}

func (g *fakeGuest) readCtl() {
	r := hyperstart.NewCtlReader(g.ctl)
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		if code != hyperstart.Call {
			g.answer(code, payload, func(code hyperstart.Code, p []byte) { g.say(code, p) })
			continue
		}
		ticket, code, payload, err := hyperstart.ParseCall(payload)
		if err != nil {
			g.t.Error(err)
			return
		}
		g.say(hyperstart.Ack, nil)
		payload = bytes.Clone(payload)
		g.wg.Go(func() {
			g.answer(code, payload, func(code hyperstart.Code, p []byte) {
				g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, code, p))
			})
		})
	}
}

func (g *fakeGuest) answer(code hyperstart.Code, payload []byte, say func(hyperstart.Code, []byte)) {
	g.mu.Lock()
	g.commands = append(g.commands, received{code, string(payload)})
	g.cond.Broadcast()
	g.mu.Unlock()
	status, answer := hyperstart.Ack, []byte(nil)
	if g.reply != nil {
		if status, answer = g.reply(code, payload); status == 0 {
			return
		}
	}
	say(status, answer)
}

func (g *fakeGuest) readTTY() {
	r := hyperstart.NewTTYReader(g.tty)
	for {
		seq, payload, err := r.Read()
		g.mu.Lock()
		switch {
		case err != nil:
			g.ended = true
		case seq == hyperstart.CreditSeq:
			err = hyperstart.ParseCredits(payload, func(c hyperstart.Credit) { g.credits[c.Seq] += int(c.Bytes) })
		default:
			g.stdin[seq] = append(g.stdin[seq], bytes.Clone(payload))
		}
		g.cond.Broadcast()
		g.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// say writes a control message; the host may have hung up.
func (g *fakeGuest) say(code hyperstart.Code, payload []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = g.ctl.Write(hyperstart.AppendCtl(nil, code, payload))
}

// output writes tty messages, one for each payload.
func (g *fakeGuest) output(seq uint64, payloads ...string) {
	for _, p := range payloads {
		if _, err := g.tty.Write(hyperstart.AppendTTY(nil, seq, []byte(p))); err != nil {
			return
		}
	}
}

// exit ends a process in the way that the dialects with the exit on the tty
// port have.
func (g *fakeGuest) exit(seq uint64, status byte) { g.output(seq, "", string([]byte{status})) }

// waitFor waits until cond, which runs under g.mu, holds.
func (g *fakeGuest) waitFor(cond func() bool) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for !cond() {
		if g.ended {
			g.t.Fatal("the host has hung up")
		}
		g.cond.Wait()
	}
}

// waitCommand waits for the n-th command of a code and returns its payload.
func (g *fakeGuest) waitCommand(code hyperstart.Code, n int) (payload string) {
	g.t.Helper()
	g.waitFor(func() bool {
		seen := 0
		i := slices.IndexFunc(g.commands, func(c received) bool {
			if c.code == code {
				seen++
			}
			return c.code == code && seen == n
		})
		if i >= 0 {
			payload = g.commands[i].payload
		}
		return i >= 0
	})
	return payload
}

// input waits until stdin of the first session has at least n bytes, and for its end when
// that is wanted.
func (g *fakeGuest) input(n int, end bool) []byte {
	g.t.Helper()
	var all []byte
	g.waitFor(func() bool {
		messages := g.stdin[firstBase]
		all = bytes.Join(messages, nil)
		ended := len(messages) > 0 && len(messages[len(messages)-1]) == 0
		return len(all) >= n && ended == end
	})
	return all
}

// newServer returns a server with one registered VM, "pod", over pipes, so
// that it works inside of a synctest bubble.
func newServer(t testing.TB, dialect hyperstart.Dialect, opts Options) (*Server, *fakeGuest) {
	t.Helper()
	return newServerWith(t, dialect, opts, nil)
}

func newServerWith(t testing.TB, dialect hyperstart.Dialect, opts Options, reply func(hyperstart.Code, []byte) (hyperstart.Code, []byte)) (*Server, *fakeGuest) {
	t.Helper()
	ctl, guestCtl := net.Pipe()
	tty, guestTTY := net.Pipe()
	g := newFakeGuest(t, guestCtl, guestTTY)
	g.reply = reply
	g.run(true)
	opts.Dialect = dialect
	s := NewServer(opts)
	v, err := openVM(context.Background(), "pod", ctl, tty, s.opts)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.vms[v.id] = v
	s.mu.Unlock()
	t.Cleanup(func() {
		_ = s.Close()
		g.close()
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
