package wiretest

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// FirstSeq is the sequence number of the first process that a proxy starts.
const FirstSeq = 3

// Received is a command that the guest got.
type Received struct {
	Code    hyperstart.Code
	Payload string
}

// Guest is a guest at the other end of both ports. It reads both all the
// time and acknowledges every command, unless reply says otherwise.
type Guest struct {
	t        testing.TB
	Ctl, TTY net.Conn
	wg       sync.WaitGroup
	// Reply, when set, answers a command; Code 0 gives no answer at all.
	Reply func(code hyperstart.Code, payload []byte) (hyperstart.Code, []byte)

	Mu       sync.Mutex // guards the fields below and the order of control messages
	cond     *sync.Cond // on Mu
	Commands []Received
	Stdin    map[uint64][][]byte // messages by sequence number
	Credits  map[uint64]int      // granted by the host, without the initial window
	ended    bool
}

// New returns a guest at its ends of the ports. Run starts it.
func New(t testing.TB, ctl, tty net.Conn) *Guest {
	g := &Guest{t: t, Ctl: ctl, TTY: tty, Stdin: make(map[uint64][][]byte), Credits: make(map[uint64]int)}
	g.cond = sync.NewCond(&g.Mu)
	return g
}

// Run serves until the host hangs up. ready says READY first.
func (g *Guest) Run(ready bool) {
	g.wg.Go(func() {
		if ready {
			g.Say(hyperstart.Ready, nil)
		}
		g.readCtl()
	})
	g.wg.Go(g.readTTY)
}

// Close hangs up, which is what the host sees of a VM that is lost.
func (g *Guest) Close() {
	_, _ = g.Ctl.Close(), g.TTY.Close()
	g.wg.Wait()
}

func (g *Guest) readCtl() {
	r := hyperstart.NewCtlReader(g.Ctl)
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		if code != hyperstart.Call {
			g.answer(code, payload, func(code hyperstart.Code, p []byte) { g.Say(code, p) })
			continue
		}
		ticket, code, payload, err := hyperstart.ParseCall(payload)
		if err != nil {
			g.t.Error(err)
			return
		}
		g.Say(hyperstart.Ack, nil)
		payload = bytes.Clone(payload)
		g.wg.Go(func() {
			g.answer(code, payload, func(code hyperstart.Code, p []byte) {
				g.Say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, code, p))
			})
		})
	}
}

func (g *Guest) answer(code hyperstart.Code, payload []byte, say func(hyperstart.Code, []byte)) {
	g.Mu.Lock()
	g.Commands = append(g.Commands, Received{code, string(payload)})
	g.cond.Broadcast()
	g.Mu.Unlock()
	status, answer := hyperstart.Ack, []byte(nil)
	if g.Reply != nil {
		if status, answer = g.Reply(code, payload); status == 0 {
			return
		}
	}
	say(status, answer)
}

func (g *Guest) readTTY() {
	r := hyperstart.NewTTYReader(g.TTY)
	for {
		seq, payload, err := r.Read()
		g.Mu.Lock()
		switch {
		case err != nil:
			g.ended = true
		case seq == hyperstart.CreditSeq:
			err = hyperstart.ParseCredits(payload, func(c hyperstart.Credit) { g.Credits[c.Seq] += int(c.Bytes) })
		default:
			g.Stdin[seq] = append(g.Stdin[seq], bytes.Clone(payload))
		}
		g.cond.Broadcast()
		g.Mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Say writes a control message; the host may have hung up.
func (g *Guest) Say(code hyperstart.Code, payload []byte) {
	g.Mu.Lock()
	defer g.Mu.Unlock()
	_, _ = g.Ctl.Write(hyperstart.AppendCtl(nil, code, payload))
}

// Output writes tty messages, one for each payload.
func (g *Guest) Output(seq uint64, payloads ...string) {
	for _, p := range payloads {
		if _, err := g.TTY.Write(hyperstart.AppendTTY(nil, seq, []byte(p))); err != nil {
			return
		}
	}
}

// Exit ends a process in the way that the dialects with the exit on the tty
// port have.
func (g *Guest) Exit(seq uint64, status byte) { g.Output(seq, "", string([]byte{status})) }

// WaitFor waits until cond, which runs under g.Mu, holds.
func (g *Guest) WaitFor(cond func() bool) {
	g.t.Helper()
	g.Mu.Lock()
	defer g.Mu.Unlock()
	for !cond() {
		if g.ended {
			g.t.Fatal("the host has hung up")
		}
		g.cond.Wait()
	}
}

// WaitCommand waits for the n-th command of a code and returns its payload.
func (g *Guest) WaitCommand(code hyperstart.Code, n int) (payload string) {
	g.t.Helper()
	g.WaitFor(func() bool {
		seen := 0
		i := slices.IndexFunc(g.Commands, func(c Received) bool {
			if c.Code == code {
				seen++
			}
			return c.Code == code && seen == n
		})
		if i >= 0 {
			payload = g.Commands[i].Payload
		}
		return i >= 0
	})
	return payload
}

// Input waits until stdin of the first session has at least n bytes, and for its end when
// that is wanted.
func (g *Guest) Input(n int, end bool) []byte {
	g.t.Helper()
	var all []byte
	g.WaitFor(func() bool {
		messages := g.Stdin[FirstSeq]
		all = bytes.Join(messages, nil)
		ended := len(messages) > 0 && len(messages[len(messages)-1]) == 0
		return len(all) >= n && ended == end
	})
	return all
}
