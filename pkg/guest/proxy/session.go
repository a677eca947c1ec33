package proxy

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
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

// chunk is one piece of output on its way to the client.
type chunk struct {
	stream proxyproto.Stream
	buf    *[]byte // from chunkPool
}

var chunkPool = sync.Pool{New: func() any {
	b := make([]byte, 0, hyperstart.MaxTTYPayload)
	return &b
}}

func getChunk() *[]byte {
	return chunkPool.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
}

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
	started   bool // the guest has acknowledged the process
	ended     bool // exit delivered, disconnected, or VM lost

	out       []chunk
	unacked   [2]int // bytes given to the client and not credited back: stdout, stderr
	windowed  bool   // the client credits what it has consumed
	outBytes  int    // bytes in out
	eof       bool   // the zero-length message has come
	exit      *uint8
	exitAsync *uint8         // exit status from the control port (hyperhq)
	remaining map[uint64]int // what the guest may still send, per sequence number

	stdin       []stdinItem
	stdinBytes  int // bytes in stdin and in the hands of the pump
	stdinCredit int
}

// stdinItem is data for the process; no data closes its stdin.
type stdinItem struct{ data []byte }

func newSession(v *vm, token string, base uint64) *session {
	s := &session{
		vm: v, token: token, base: base,
		remaining:   map[uint64]int{base: hyperstart.CreditWindow, base + 1: hyperstart.CreditWindow},
		stdinCredit: hyperstart.CreditWindow,
	}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// receive takes one tty message from the guest. An error means that the guest
// broke the protocol.
func (s *session) receive(seq uint64, payload []byte) error {
	dialect := s.vm.conn.Dialect()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil
	case s.token == "" && !s.eof && len(payload) > 0:
		return s.discardLocked(seq, len(payload))
	case len(payload) == 0:
		// The C agents also answer input for an unknown sequence number in this
		// way; an exit status never follows that, so it does no harm.
		if seq == s.base {
			s.eof = true
			s.settleExitLocked()
		}
		return nil
	case s.eof && seq == s.base && dialect.ExitOnTTY():
		if len(payload) != 1 {
			return fmt.Errorf("guest sent %d bytes on stream %d after its end", len(payload), seq)
		}
		status := payload[0]
		s.exit = &status
		s.cond.Broadcast()
		return nil
	case s.eof:
		return fmt.Errorf("guest sent %d bytes on stream %d after its end", len(payload), seq)
	}
	if dialect.HasCredits() {
		if s.remaining[seq] < len(payload) {
			return fmt.Errorf("guest sent %d bytes on stream %d, %d are granted", len(payload), seq, s.remaining[seq])
		}
		s.remaining[seq] -= len(payload)
	} else {
		for s.outBytes+s.unacked[0]+s.unacked[1] >= legacyBacklog && !s.ended {
			s.cond.Wait()
		}
	}
	s.enqueueLocked(seq, payload)
	return nil
}

func (s *session) enqueueLocked(seq uint64, payload []byte) {
	c := chunk{stream: proxyproto.StreamStdout, buf: getChunk()}
	if seq != s.base {
		c.stream = proxyproto.StreamStderr
	}
	*c.buf = append((*c.buf)[:0], payload...)
	s.out = append(s.out, c)
	s.outBytes += len(payload)
	s.cond.Broadcast()
}

// discardLocked drops output and lets the guest send on.
func (s *session) discardLocked(seq uint64, n int) error {
	if !s.vm.conn.Dialect().HasCredits() {
		return nil
	}
	// The reader must not write to the port: the guest may be writing too.
	s.vm.grantLater(hyperstart.Credit{Seq: seq, Bytes: uint32(n)})
	return nil
}

// exitedAsync takes the exit status that came on the control port.
func (s *session) exitedAsync(status uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exitAsync = &status
	s.settleExitLocked()
}

// settleExitLocked makes the exit known once both halves have come: the order
// between the control port and the tty port is not defined.
func (s *session) settleExitLocked() {
	if s.eof && s.exitAsync != nil {
		s.exit = s.exitAsync
	}
	s.cond.Broadcast()
}

// writeOutput gives output and then the exit status to whatever client is
// connected, until the session ends. It is the session writer.
func (s *session) writeOutput() {
	for {
		s.mu.Lock()
		for !s.ended && (s.client == nil || (len(s.out) == 0 && s.exit == nil)) {
			s.cond.Wait()
		}
		if s.ended {
			s.mu.Unlock()
			return
		}
		client := s.client
		if len(s.out) == 0 {
			status := *s.exit
			s.exit = nil
			s.mu.Unlock()
			_ = client.write(func(w *proxyproto.Writer) error { return w.WriteProcessExited(status) })
			continue
		}
		c := s.out[0]
		s.out[0] = chunk{}
		s.out = s.out[1:]
		n := len(*c.buf)
		s.outBytes -= n
		s.unacked[side(c.stream)] += n
		windowed := s.windowed
		s.mu.Unlock()
		// A write error means that the client is gone; its reader sees that too
		// and detaches it, and the output of a client that is gone is lost.
		_ = client.write(func(w *proxyproto.Writer) error { return w.WriteStream(c.stream, *c.buf) })
		chunkPool.Put(c.buf)
		if !windowed {
			s.consumed(c.stream, n)
		}
	}
}

// consumed notes that the client has taken n bytes of a stream, and lets the
// guest send as many more.
func (s *session) consumed(stream proxyproto.Stream, n int) {
	seq := s.base + uint64(side(stream))
	s.mu.Lock()
	n = min(n, s.unacked[side(stream)])
	s.unacked[side(stream)] -= n
	s.remaining[seq] += n
	s.cond.Broadcast()
	ended := s.ended || s.eof
	s.mu.Unlock()
	if n > 0 && !ended && s.vm.conn.Dialect().HasCredits() {
		s.vm.grant(hyperstart.Credit{Seq: seq, Bytes: uint32(n)})
	}
}

// side is 0 for stdout and 1 for stderr: the offset of the sequence number.
func side(stream proxyproto.Stream) int {
	if stream == proxyproto.StreamStderr {
		return 1
	}
	return 0
}

// end ends the session: the goroutines stop and nothing is accepted any more.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	for _, c := range s.out {
		chunkPool.Put(c.buf)
	}
	s.out, s.stdin = nil, nil
	s.outBytes, s.stdinBytes = 0, 0
	s.cond.Broadcast()
	s.mu.Unlock()
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
	unacked := s.unacked
	s.cond.Broadcast()
	s.mu.Unlock()
	s.consumed(proxyproto.StreamStdout, unacked[0])
	s.consumed(proxyproto.StreamStderr, unacked[1])
}

// discarded reports whether the session belongs to a process that nobody
// watches and that has ended.
func (s *session) discarded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token == "" && s.exit != nil
}
