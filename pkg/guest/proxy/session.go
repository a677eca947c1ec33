package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/condwait"
)

const (
	// compatBacklog bounds in bytes what a session of a guest without credits
	// may hold for a slow client before the guest's tty port waits.
	compatBacklog = 1 << 20
	// stdinBacklog bounds in bytes the stdin that waits for the guest; beyond
	// it the client's connection is not read.
	stdinBacklog = 1 << 20
	// maxStdinBacklog is the bound for what clients have left behind who have hung up: the
	// buffers of some connections.
	maxStdinBacklog = 2 * stdinBacklog
)

var errSessionEnded = errors.New("process has exited")

// session is one process's place in the proxy. The token names it; the two
// sequence numbers are its streams on the tty port.
type session struct {
	vm    *vm
	token string // "" for a session whose output is discarded
	base  uint64 // stdin and stdout; base+1 is stderr

	mu      sync.Mutex // guards the fields below, and what is in them
	cond    *sync.Cond // on mu; signals every change
	claimed bool       // a client has it, or had it
	client  *clientConn
	process process
	start   startState
	ended   bool // disconnected, or VM lost
	out     output
	exit    exit
	stdin   stdin
}

// process is what the guest calls the session's process.
type process struct {
	container string
	id        string
	exec      bool // created by execcmd
}

// startState is how far the guest is with the process.
type startState uint8

const (
	processNew      startState = iota
	processStarting            // the command is under way
	processStarted             // the guest has acknowledged the process
)

func newSession(v *vm, token string, base uint64) *session {
	s := &session{vm: v, token: token, base: base}
	s.cond = sync.NewCond(&s.mu)
	s.out = output{session: s, remaining: [2]int{hyperstart.CreditWindow, hyperstart.CreditWindow}}
	s.exit = exit{session: s}
	s.stdin = stdin{session: s, credit: hyperstart.CreditWindow}
	return s
}

// end ends the session: the goroutines stop and nothing is accepted from then on.
// It returns what credit a process that keeps running has not got back, by
// sequence number.
func (s *session) end() (uncredited map[uint64]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start == processStarted && !s.ended && !s.exit.eof && s.vm.conn.Dialect().HasCredits() {
		uncredited = make(map[uint64]int)
		for side, n := range s.out.remaining {
			uncredited[s.base+uint64(side)] = hyperstart.CreditWindow - n
		}
	}
	s.ended = true
	s.out.clear()
	s.stdin.clear()
	s.cond.Broadcast()
	return uncredited
}

// attach makes client the one that gets the output. The token can be claimed
// again after the client has hung up without disconnecting.
func (s *session) attach(client *clientConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended { // it would not have been found were it disconnected
		return fmt.Errorf("vm %s is lost", s.vm.id)
	}
	if s.client != nil {
		return worded{errTokenClaimed, "token already claimed: " + s.token}
	}
	first := !s.claimed
	s.client, s.claimed = client, true
	s.out.windowed = false
	s.cond.Broadcast()
	if first {
		s.vm.wg.Go(s.out.run)
		s.vm.wg.Go(s.stdin.run)
	}
	return nil
}

// detach drops a client that has hung up. What it was given and had not consumed
// is lost, so the guest may send as much again.
func (s *session) detach(client *clientConn) {
	s.mu.Lock()
	if s.client != client {
		s.mu.Unlock()
		return
	}
	s.client = nil
	lost := s.out.given()
	s.cond.Broadcast()
	s.mu.Unlock()
	s.out.consumed(0, lost[0])
	s.out.consumed(1, lost[1])
}

// reserveStart reserves the session for one command that starts its process.
func (s *session) reserveStart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start != processNew {
		return worded{errors.New("the token has a process already"), fmt.Sprintf("token %s has a process already", s.token)}
	}
	s.start = processStarting
	return nil
}

// completeStart ends what reserveStart began: the process runs, or another one
// may be tried.
func (s *session) completeStart(ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = processNew
	if ok {
		s.start = processStarted
	}
	s.cond.Broadcast()
}

// isDiscarded reports whether the session belongs to a process without a token
// that has exited.
func (s *session) isDiscarded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token == "" && s.exit.known
}

func (s *session) isStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start == processStarted
}

// waitStarted waits until the guest has acknowledged the process.
func (s *session) waitStarted(ctx context.Context) error {
	return s.waitFor(ctx, func() bool { return s.start == processStarted })
}

// waitClaimed waits until a shim has claimed the token.
func (s *session) waitClaimed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	if err := s.waitFor(ctx, func() bool { return s.client != nil }); err != nil {
		return worded{errors.New("timeout waiting for a shim to claim the token"), "timeout waiting for shim with token " + s.token}
	}
	return nil
}

// waitFor waits until cond, which runs under s.mu, holds.
func (s *session) waitFor(ctx context.Context, cond func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := condwait.Until(ctx, s.cond, func() bool { return s.ended || cond() })
	if err == nil && !cond() {
		return errSessionEnded
	}
	return err
}
