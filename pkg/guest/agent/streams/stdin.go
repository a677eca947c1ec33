package streams

import (
	"bytes"
	"io"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// grantBatch is how much of the window is consumed before it is granted anew:
// often enough that the host never runs dry, seldom enough that grants are a
// small part of the traffic.
const grantBatch = hyperstart.CreditWindow / 4

// stdin queues the input of one process between the tty reader and a pump.
type stdin struct {
	terminal bool
	// grant tells the host that n more bytes may come.
	grant func(n int)

	mu         sync.Mutex
	cond       *sync.Cond
	queue      [][]byte
	uncredited int  // received and not granted again; at most the window
	eof        bool // the host has closed the stream
	closed     bool // the process has ended
}

func newStdin(terminal bool, grant func(n int)) *stdin {
	s := &stdin{terminal: terminal, grant: grant}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// push queues one message. It reports false when the host sends more than the
// window allows; the data is dropped then. It never waits.
func (s *stdin) push(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) == 0 {
		// A terminal has no end of input; programs read ^D instead.
		s.eof = s.eof || !s.terminal
		s.cond.Broadcast()
		return true
	}
	if s.closed || s.eof {
		return true
	}
	if s.uncredited+len(b) > hyperstart.CreditWindow {
		return false
	}
	s.uncredited += len(b)
	s.queue = append(s.queue, bytes.Clone(b))
	s.cond.Broadcast()
	return true
}

// awaitRoom waits until n more bytes fit, or nobody wants them.
func (s *stdin) awaitRoom(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.uncredited+n > hyperstart.CreditWindow && !s.eof && !s.closed {
		s.cond.Wait()
	}
}

// next waits for data. It returns nil at the end of the input.
func (s *stdin) next() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.eof && !s.closed {
		s.cond.Wait()
	}
	if s.closed || len(s.queue) == 0 {
		return nil
	}
	b := s.queue[0]
	s.queue = s.queue[1:]
	return b
}

// consumed returns how much is to be granted after n more bytes were written.
func (s *stdin) consumed(pending int) int {
	if pending < grantBatch {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncredited -= pending
	s.cond.Broadcast()
	return pending
}

// close ends the pump; what is queued is lost.
func (s *stdin) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.queue = nil
	s.cond.Broadcast()
}

// pump writes the queue to the process until its end. A process that closes
// its input early still consumes what is sent, or its host would wait forever
// for credit.
func (s *stdin) pump(w io.Writer) {
	pending := 0
	broken := false
	for {
		b := s.next()
		if b == nil {
			return
		}
		if !broken {
			_, err := w.Write(b)
			broken = err != nil
		}
		pending += len(b)
		if n := s.consumed(pending); n > 0 {
			pending = 0
			s.grant(n)
		}
	}
}
