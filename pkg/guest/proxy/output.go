package proxy

import (
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/outqueue"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// output is the way of a session's stdout and stderr, sides 0 and 1, to the
// client. session.mu guards it.
type output struct {
	session   *session
	queue     outqueue.Queue
	bytes     int             // in queue
	writing   *outqueue.Chunk // what the session writer is writing
	unacked   [2]int          // bytes given to the client and not credited back
	windowed  bool            // the client credits what it has consumed
	remaining [2]int          // bytes that the guest may still send
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
	case len(payload) == 0:
		// The C agents also answer input for an unknown sequence number in this
		// way; an exit status never follows that, so it does no harm.
		if seq == s.base {
			s.exit.receiveEOF()
		}
		return nil
	case s.exit.eof && seq == s.base && dialect.ExitOnTTY() && !s.exit.known && len(payload) == 1:
		s.exit.set(payload[0])
		return nil
	case s.exit.eof:
		return fmt.Errorf("guest sent %d bytes on stream %d after its end", len(payload), seq)
	}
	return s.out.receive(int(seq-s.base), payload, dialect.HasCredits())
}

// receive takes output. The caller holds session.mu.
func (o *output) receive(side int, payload []byte, credits bool) error {
	s := o.session
	if credits {
		if o.remaining[side] < len(payload) {
			return fmt.Errorf("guest sent %d bytes on stream %d, %d are granted", len(payload), s.base+uint64(side), o.remaining[side])
		}
		o.remaining[side] -= len(payload)
	}
	if s.token == "" { // dropped; the credit loop credits it
		o.unacked[side] += len(payload)
		return nil
	}
	for !credits && o.bytes+o.unacked[0]+o.unacked[1] >= compatBacklog {
		s.cond.Wait()
		if s.ended {
			return nil
		}
	}
	stream := proxyproto.StreamStdout
	if side != 0 {
		stream = proxyproto.StreamStderr
	}
	o.queue.Push(stream, payload)
	o.bytes += len(payload)
	s.cond.Broadcast()
	return nil
}

// clear drops what waits. The caller holds session.mu.
func (o *output) clear() {
	o.queue.Clear()
	o.bytes = 0
}

// given returns what a client that has disconnected was given and had not
// consumed. The caller holds session.mu.
func (o *output) given() [2]int {
	lost := o.unacked
	if o.writing != nil { // the writer decides about that
		lost[outqueue.Side(o.writing.Stream)] -= len(o.writing.Buf)
	}
	return lost
}

// run is the session writer: it gives output and then the exit status to
// whatever client is connected, until the session ends. What cannot be written
// to a client that has disconnected is kept for the next one.
func (o *output) run() {
	s := o.session
	var gone *clientConn // the client to which writing failed
	for {
		s.mu.Lock()
		for !s.ended && (s.client == nil || s.client == gone || (o.queue.Len() == 0 && s.exit.undelivered == nil)) {
			s.cond.Wait()
		}
		client, ended, output := s.client, s.ended, o.queue.Len() > 0
		s.mu.Unlock()
		if ended {
			return
		}
		var err error
		if output {
			err = o.writeChunk(client)
		} else {
			err = s.exit.write(client)
		}
		if err != nil {
			gone = client
			if !hasHungUp(err) {
				_ = client.conn.Close() // it has lost track
			} // else its reader goes on to the end: the last signal of a shim may be there
		}
	}
}

// writeChunk writes the first chunk. On error the chunk is the first one again.
func (o *output) writeChunk(client *clientConn) error {
	s := o.session
	s.mu.Lock()
	if o.queue.Len() == 0 { // the session has ended
		s.mu.Unlock()
		return nil
	}
	c := o.queue.Pop()
	n, side := len(c.Buf), outqueue.Side(c.Stream)
	o.bytes -= n
	o.unacked[side] += n // before the write, because the client may be quick to credit it
	o.writing = c
	s.mu.Unlock()
	err := client.write(func(w *proxyproto.Writer) error { return w.WriteStream(c.Stream, c.Buf) })
	s.mu.Lock()
	o.writing = nil
	if err != nil && !s.ended {
		o.unacked[side] -= n
		o.bytes += n
		o.queue.Unpop(c)
		s.mu.Unlock()
		return err
	}
	credited := o.windowed && s.client == client // by the client
	s.mu.Unlock()
	outqueue.Put(c.Buf)
	if !credited {
		o.consumed(side, n)
	}
	return err
}

// setWindowed says that the client credits what it has consumed.
func (o *output) setWindowed() {
	o.session.mu.Lock()
	defer o.session.mu.Unlock()
	o.windowed = true
}

// consumed records that the client has consumed n bytes of a side, and grants
// the guest as many.
func (o *output) consumed(side, n int) {
	s := o.session
	s.mu.Lock()
	n = min(n, o.unacked[side])
	o.unacked[side] -= n
	o.remaining[side] += n
	s.cond.Broadcast()
	ended := s.ended || s.exit.eof
	s.mu.Unlock()
	if n > 0 && !ended && s.vm.conn.Dialect().HasCredits() {
		s.vm.grant(hyperstart.Credit{Seq: s.base + uint64(side), Bytes: uint32(n)})
	}
}

// creditDiscarded grants the guest what was discarded.
func (o *output) creditDiscarded() {
	for side := range o.unacked {
		o.consumed(side, hyperstart.CreditWindow)
	}
}
