package proxy

import (
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/outqueue"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// receive takes one tty message from the guest. An error means that the guest
// broke the protocol.
func (s *session) receive(seq uint64, payload []byte) error {
	dialect := s.vm.conn.Dialect()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil
	case len(payload) == 0:
		// The C agents also answer input for an unknown sequence number in this
		// way; an exit status never follows that, so it does no harm.
		if seq == s.base {
			s.eof = true
			s.settleExitLocked()
		}
		return nil
	case s.eof && seq == s.base && dialect.ExitOnTTY() && !s.exited && len(payload) == 1:
		s.setExitLocked(payload[0])
		return nil
	case s.eof:
		return fmt.Errorf("guest sent %d bytes on stream %d after its end", len(payload), seq)
	}
	if dialect.HasCredits() {
		if s.remaining[seq] < len(payload) {
			return fmt.Errorf("guest sent %d bytes on stream %d, %d are granted", len(payload), seq, s.remaining[seq])
		}
		s.remaining[seq] -= len(payload)
	}
	if s.token == "" { // dropped; the granter credits it
		s.unacked[seq-s.base] += len(payload)
		return nil
	}
	for !dialect.HasCredits() && s.outBytes+s.unacked[0]+s.unacked[1] >= legacyBacklog {
		s.cond.Wait()
		if s.ended {
			return nil
		}
	}
	stream := proxyproto.StreamStdout
	if seq != s.base {
		stream = proxyproto.StreamStderr
	}
	s.out.Push(stream, payload)
	s.outBytes += len(payload)
	s.cond.Broadcast()
	return nil
}

// writeOutput gives output and then the exit status to whatever client is
// connected, until the session ends. It is the session writer. What cannot be
// written to a client that has gone is kept for the next one.
func (s *session) writeOutput() {
	var gone *clientConn // the client to which writing failed
	for {
		s.mu.Lock()
		for !s.ended && (s.client == nil || s.client == gone || (s.out.Len() == 0 && s.exit == nil)) {
			s.cond.Wait()
		}
		client, ended, output := s.client, s.ended, s.out.Len() > 0
		s.mu.Unlock()
		if ended {
			return
		}
		var err error
		if output {
			err = s.writeChunk(client)
		} else {
			err = s.writeExit(client)
		}
		if err != nil {
			gone = client
			_ = client.conn.Close() // its reader may not have noticed
		}
	}
}

// writeChunk writes the first chunk. On error the chunk is the first one again.
func (s *session) writeChunk(client *clientConn) error {
	s.mu.Lock()
	if s.out.Len() == 0 { // the session has ended
		s.mu.Unlock()
		return nil
	}
	c := s.out.Pop()
	n, i := len(c.Buf), outqueue.Side(c.Stream)
	s.outBytes -= n
	s.unacked[i] += n // before the write, because the client may be quick to credit it
	s.writing = c
	s.mu.Unlock()
	err := client.write(func(w *proxyproto.Writer) error { return w.WriteStream(c.Stream, c.Buf) })
	s.mu.Lock()
	s.writing = nil
	if err != nil && !s.ended {
		s.unacked[i] -= n
		s.outBytes += n
		s.out.Unpop(c)
		s.mu.Unlock()
		return err
	}
	credited := s.windowed && s.client == client // by the client
	s.mu.Unlock()
	outqueue.Put(c.Buf)
	if !credited {
		s.consumed(i, n)
	}
	return err
}

// writeExit writes the exit status. On error it is still to be written.
func (s *session) writeExit(client *clientConn) error {
	s.mu.Lock()
	status := s.exit
	s.exit = nil
	s.mu.Unlock()
	err := client.write(func(w *proxyproto.Writer) error { return w.WriteProcessExited(*status) })
	if err != nil {
		s.mu.Lock()
		s.exit = status
		s.mu.Unlock()
	}
	return err
}

// consumed notes that the client has taken n bytes of stdout (0) or stderr (1),
// and lets the guest send as many more.
func (s *session) consumed(side, n int) {
	seq := s.base + uint64(side)
	s.mu.Lock()
	n = min(n, s.unacked[side])
	s.unacked[side] -= n
	s.remaining[seq] += n
	s.cond.Broadcast()
	ended := s.ended || s.eof
	s.mu.Unlock()
	if n > 0 && !ended && s.vm.conn.Dialect().HasCredits() {
		s.vm.grant(hyperstart.Credit{Seq: seq, Bytes: uint32(n)})
	}
}

// creditDiscarded lets the guest send on what nobody wants to see.
func (s *session) creditDiscarded() {
	for i := range 2 {
		s.consumed(i, hyperstart.CreditWindow)
	}
}
