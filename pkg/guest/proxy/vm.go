package proxy

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guestconn"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// firstBase is the first sequence number that a token gets, as in the original
// proxy, where 1 and 2 belong to the null session.
const firstBase = 3

const (
	// maxSessions bounds the tokens of a VM that have not been disconnected, for clients of the socket.
	maxSessions = 4096
	// maxOwnSessions is the bound for who runs the server: clients that take all of theirs leave it as many.
	maxOwnSessions = 2 * maxSessions
)

// vm is one registered VM.
type vm struct {
	id         string
	reattached bool // processes of an earlier connection have numbers too
	owned      bool // by who runs the server
	conn       *guestconn.Conn
	wg         sync.WaitGroup // session goroutines and the credit loop

	creditWake chan struct{} // wakes the credit loop; capacity 1

	mu         sync.Mutex // guards the fields below
	nextBase   uint64
	byToken    map[string]*session
	freed      []string // the last tokens that were disconnected, oldest first
	bySeq      map[uint64]*session
	uncredited map[*session]struct{} // sessions with discarded output to be credited
	lateBytes  map[uint64]int        // output of disconnected sessions to be credited, by sequence number
	lost       bool
}

// freedTokens is how many disconnected tokens are remembered, so that claiming
// one again gets the answer that the original gives.
const freedTokens = 64

// openVM takes ownership of the two ports of a guest. ctx bounds the wait for READY.
func openVM(ctx context.Context, id string, ctl, tty net.Conn, opts Options, h handlers) (*vm, error) {
	v := &vm{
		id:         id,
		reattached: opts.Reattach,
		owned:      h.owned,
		nextBase:   firstBase,
		byToken:    make(map[string]*session),
		bySeq:      make(map[uint64]*session),
		uncredited: make(map[*session]struct{}),
		lateBytes:  make(map[uint64]int),
		creditWake: make(chan struct{}, 1),
	}
	conn, err := guestconn.Open(ctx, ctl, tty, guestconn.Options{
		Reattach: opts.Reattach || opts.Restored,
		Dialect:  opts.Dialect,
		TTY:      v.receive,
		Tap:      opts.Tap,
		Exited:   v.exited,
		Event: func(e hyperstart.EventMessage) {
			switch {
			case e.Kind == hyperstart.EventLog:
				if opts.GuestLog != nil && e.Log != nil {
					opts.GuestLog(*e.Log)
				}
			case h.event != nil:
				h.event(e)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	v.mu.Lock() // receive may run already
	v.conn = conn
	v.mu.Unlock()
	v.wg.Go(v.creditLoop)
	v.wg.Go(func() {
		<-conn.Done()
		v.endSessions()
		if h.lost != nil {
			h.lost(conn.Err())
		}
	})
	return v, nil
}

// close ends the sessions and the connection, and joins all goroutines.
func (v *vm) close() {
	v.endSessions()
	_ = v.conn.Close()
	v.wg.Wait()
}

// endSessions ends all sessions and closes their connections, which is how
// clients learn that the VM is lost.
func (v *vm) endSessions() {
	v.mu.Lock()
	v.lost = true
	var all []*session
	seen := make(map[*session]bool)
	for _, s := range v.bySeq {
		if !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	v.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		client := s.client
		s.mu.Unlock()
		s.end()
		if client != nil {
			_ = client.conn.Close()
		}
	}
}

// receive is the handler of the tty port.
func (v *vm) receive(seq uint64, payload []byte) error {
	v.mu.Lock()
	s, conn := v.bySeq[seq], v.conn
	given := v.reattached || seq >= firstBase && seq < v.nextBase
	v.mu.Unlock()
	credits := conn != nil && conn.Dialect().HasCredits()
	switch {
	case seq == hyperstart.CreditSeq && credits:
		return hyperstart.ParseCredits(payload, v.addStdinCredit)
	case s == nil && !given && credits:
		return fmt.Errorf("guest sent %d bytes on stream %d, which no process has had", len(payload), seq)
	case s == nil: // late output of a process that was disconnected
		if credits {
			v.mu.Lock()
			v.addLateLocked(seq, len(payload))
			v.mu.Unlock()
		}
		return nil
	}
	err := s.receive(seq, payload)
	switch {
	case s.token != "":
	case s.isDiscarded():
		v.drop(s)
	default:
		// This reader must not write to the port: the guest may be writing too.
		v.creditLater(s)
	}
	return err
}

func (v *vm) addStdinCredit(c hyperstart.Credit) {
	v.mu.Lock()
	s := v.bySeq[c.Seq]
	v.mu.Unlock()
	if s != nil && c.Seq == s.base {
		s.stdin.addCredit(c.Bytes)
	}
}

// exited is the handler of exits on the control port.
func (v *vm) exited(e hyperstart.AsyncEvent) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for seq, s := range v.bySeq {
		if seq == s.base && s.exitedAsync(e.Container, e.Process, uint8(e.Status)) {
			if s.isDiscarded() {
				v.dropLocked(s)
			}
			return
		}
	}
}

// grant gives the guest credit. It is called by session writers.
func (v *vm) grant(c hyperstart.Credit) { _ = v.conn.Grant(c) } // a lost VM needs none

// creditLater has the credit loop credit the discarded output of s.
func (v *vm) creditLater(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.uncredited[s] = struct{}{}
	v.wakeCreditLoop()
}

// addLateLocked has the credit loop credit output that came or comes after a
// disconnect: descendants of the process must not notice that.
func (v *vm) addLateLocked(seq uint64, n int) {
	if n > 0 {
		v.lateBytes[seq] += n
		v.wakeCreditLoop()
	}
}

func (v *vm) wakeCreditLoop() {
	select {
	case v.creditWake <- struct{}{}:
	default:
	}
}

// creditLoop credits output that is not consumed.
func (v *vm) creditLoop() {
	for {
		select {
		case <-v.creditWake:
		case <-v.conn.Done():
			return
		}
		v.mu.Lock()
		uncredited, late := v.uncredited, v.lateBytes
		v.uncredited, v.lateBytes = make(map[*session]struct{}), make(map[uint64]int)
		v.mu.Unlock()
		for s := range uncredited {
			s.out.creditDiscarded()
		}
		for seq, n := range late {
			v.grant(hyperstart.Credit{Seq: seq, Bytes: uint32(n)})
		}
	}
}

// newTokens makes n sessions and returns their tokens, nil when n is not positive. It makes all or none.
func (v *vm) newTokens(n int, own bool) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n <= 0 {
		return nil, nil
	}
	if err := v.roomLocked(n, own); err != nil {
		return nil, err
	}
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = v.newSessionLocked(proxyproto.NewToken()).token
	}
	return tokens, nil
}

// newSession makes one session.
func (v *vm) newSession(token string, own bool) (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.roomLocked(1, own); err != nil {
		return nil, err
	}
	return v.newSessionLocked(token), nil
}

// roomLocked returns an error unless there can be n more sessions.
func (v *vm) roomLocked(n int, own bool) error {
	most, have := maxSessions, len(v.bySeq)/2
	if own {
		most = maxOwnSessions
	}
	switch {
	case v.lost:
		return fmt.Errorf("vm %s is lost", v.id)
	case have >= most:
		return fmt.Errorf("vm %s has %d sessions already", v.id, have)
	case n > most-have:
		return fmt.Errorf("vm %s has %d sessions already, %d more are too many", v.id, have, n)
	}
	return nil
}

// newSessionLocked reserves two sequence numbers. They are never used again.
func (v *vm) newSessionLocked(token string) *session {
	s := newSession(v, token, v.nextBase)
	v.nextBase += 2
	v.bySeq[s.base], v.bySeq[s.base+1] = s, s
	if token != "" {
		v.byToken[token] = s
	}
	return s
}

// find returns the session of a token.
func (v *vm) find(token string) (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.byToken[token]; s != nil {
		return s, nil
	}
	return nil, worded{errUnknownToken, "unknown token " + token}
}

// drop frees a session: its token can never be used again, and output that
// still comes is dropped.
func (v *vm) drop(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropLocked(s)
}

func (v *vm) dropLocked(s *session) {
	if v.byToken[s.token] == s { // not for the second time
		v.freed = append(v.freed[max(0, len(v.freed)-freedTokens+1):], s.token)
	}
	delete(v.byToken, s.token)
	delete(v.bySeq, s.base)
	delete(v.bySeq, s.base+1)
	delete(v.uncredited, s)
	for seq, n := range s.end() {
		v.addLateLocked(seq, n)
	}
}
