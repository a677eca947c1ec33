package proxy

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/outqueue"
)

const (
	// legacyBacklog bounds in bytes what a session of a guest without credits
	// may hold for a slow client before the guest's tty port waits.
	legacyBacklog = 1 << 20
	// stdinBacklog bounds in bytes the stdin that waits for the guest; beyond
	// it the client's connection is not read.
	stdinBacklog = 1 << 20
)

var errSessionEnded = errors.New("process has exited")

// session is one process's place in the proxy. The token names it; the two
// sequence numbers are its streams on the tty port.
type session struct {
	vm    *vm
	token string // "" for a session whose output is discarded
	base  uint64 // stdin and stdout; base+1 is stderr

	mu        sync.Mutex // guards the fields below
	cond      *sync.Cond // on mu; signals every change
	claimed   bool       // a client has it, or had it
	client    *clientConn
	container string
	process   string
	exec      bool // created by execcmd
	used      bool // a command that starts its process is under way, or was
	started   bool // the guest has acknowledged the process
	ended     bool // disconnected, or VM lost

	out       outqueue.Queue
	outBytes  int             // bytes in out
	writing   *outqueue.Chunk // what the session writer has in its hands
	unacked   [2]int          // bytes given to the client and not credited back: stdout, stderr
	windowed  bool            // the client credits what it has consumed
	remaining map[uint64]int  // what the guest may still send, per sequence number

	eof       bool   // the zero-length message has come
	exited    bool   // the exit status has come
	exit      *uint8 // the status while it is not delivered
	exitAsync *uint8 // exit status from the control port (hyperhq)

	stdin       []stdinItem
	stdinBytes  int // what stdin and the hands of the pump cost
	stdinCredit int
}

func newSession(v *vm, token string, base uint64) *session {
	s := &session{
		vm: v, token: token, base: base,
		remaining:   map[uint64]int{base: hyperstart.CreditWindow, base + 1: hyperstart.CreditWindow},
		stdinCredit: hyperstart.CreditWindow,
	}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// exitedAsync takes the exit status that came on the control port, when it is
// this session's process that has ended.
func (s *session) exitedAsync(container, process string, status uint8) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.container != container || s.process != process || s.ended || s.exitAsync != nil {
		return false
	}
	s.exitAsync = &status
	s.settleExitLocked()
	return true
}

// settleExitLocked makes the exit known once both halves have come: the order
// between the control port and the tty port is not defined.
func (s *session) settleExitLocked() {
	if s.eof && s.exitAsync != nil && !s.exited {
		s.setExitLocked(*s.exitAsync)
	}
}

// setExitLocked takes the exit status. Nobody reads stdin any more.
func (s *session) setExitLocked(status uint8) {
	s.exited, s.exit = true, &status
	s.stdin, s.stdinBytes = nil, 0
	s.cond.Broadcast()
}

// end ends the session: the goroutines stop and nothing is accepted any more.
// It returns what credit a process that goes on has not got back.
func (s *session) end() (owed map[uint64]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started && !s.ended && !s.eof && s.vm.conn.Dialect().HasCredits() {
		owed = make(map[uint64]int)
		for seq, n := range s.remaining {
			owed[seq] = hyperstart.CreditWindow - n
		}
	}
	s.ended = true
	s.out.Clear()
	s.outBytes = 0
	s.stdin, s.stdinBytes = nil, 0
	s.cond.Broadcast()
	return owed
}

// attach makes client the one that gets the output. The token can be claimed
// again after the client has gone without disconnecting.
func (s *session) attach(client *clientConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil || s.ended {
		return fmt.Errorf("token already claimed: %s", s.token)
	}
	first := !s.claimed
	s.client, s.claimed = client, true
	s.windowed = false
	s.cond.Broadcast()
	if first {
		s.vm.wg.Go(s.writeOutput)
		s.vm.wg.Go(s.pumpStdin)
	}
	return nil
}

// detach forgets a client that has gone. What it was given and had not
// consumed is lost, so the guest may send as much again.
func (s *session) detach(client *clientConn) {
	s.mu.Lock()
	if s.client != client {
		s.mu.Unlock()
		return
	}
	s.client = nil
	lost := s.unacked
	if s.writing != nil { // the writer decides about that
		lost[outqueue.Side(s.writing.Stream)] -= len(s.writing.Buf)
	}
	s.cond.Broadcast()
	s.mu.Unlock()
	s.consumed(0, lost[0])
	s.consumed(1, lost[1])
}

// begin reserves the session for one command that starts its process.
func (s *session) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used {
		return fmt.Errorf("token %s has a process already", s.token)
	}
	s.used = true
	return nil
}

// began ends what begin started: the process runs, or another one may be tried.
func (s *session) began(ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used, s.started = ok, ok
	s.cond.Broadcast()
}

// discarded reports whether the session belongs to a process that nobody
// watches and that has ended.
func (s *session) discarded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token == "" && s.exited
}
