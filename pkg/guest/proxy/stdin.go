package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/condwait"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// stdin is the way of a session's stdin to the guest. session.mu guards it.
type stdin struct {
	session *session
	queue   []stdinItem
	bytes   int // what queue and the item that the pump sends cost
	credit  int // bytes that the guest accepts
}

// stdinItem is data for the process; no data closes its stdin.
type stdinItem struct{ data []byte }

// push takes data for the process; empty data closes its stdin. It blocks while
// too much waits already, as long as the client has not hung up, which watch says. What a
// client has sent before is taken beyond that, within a bound: a signal may be behind it.
func (i *stdin) push(data []byte, watch func() (context.Context, func())) error {
	s := i.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.fullLocked(stdinBacklog) {
		ctx, stop := watch()
		_ = condwait.Until(ctx, s.cond, func() bool { return !i.fullLocked(stdinBacklog) }) // see below
		stop()
	}
	if i.closedLocked() {
		return errSessionEnded
	}
	if i.fullLocked(maxStdinBacklog) {
		return fmt.Errorf("%d bytes of stdin wait for a process that does not read, and the client has hung up with more", i.bytes)
	}
	i.queue = append(i.queue, stdinItem{data: bytes.Clone(data)})
	i.bytes += len(data) + proxyproto.StdinOverhead
	s.cond.Broadcast()
	return nil
}

// fullLocked reports whether there are too many bytes for more, and a process that may read them.
func (i *stdin) fullLocked(limit int) bool { return i.bytes >= limit && !i.closedLocked() }

// closedLocked reports whether the process reads no more stdin.
func (i *stdin) closedLocked() bool { return i.session.ended || i.session.exit.known }

// clear drops what waits. The caller holds session.mu.
func (i *stdin) clear() { i.queue, i.bytes = nil, 0 }

// drain waits until at most below bytes of stdin wait for the guest.
func (i *stdin) drain(ctx context.Context, below int) error {
	s := i.session
	s.mu.Lock()
	defer s.mu.Unlock()
	err := condwait.Until(ctx, s.cond, func() bool { return i.bytes <= below || i.closedLocked() })
	if i.closedLocked() {
		return errSessionEnded
	}
	return err
}

// run is the stdin pump: it sends stdin to the guest in order, in pieces that
// the guest accepts, until the process reads no more.
func (i *stdin) run() {
	for {
		data, ok := i.next()
		if !ok {
			return
		}
		for first := true; first || len(data) > 0; first = false {
			n := i.acquireCredit(len(data))
			if n == 0 && len(data) > 0 {
				return
			}
			if err := i.send(data[:n]); err != nil {
				return // a lost VM ends the session
			}
			data = data[n:]
			i.sent(n)
		}
		i.sent(proxyproto.StdinOverhead)
	}
}

// next waits for the next item and for the start of the process.
func (i *stdin) next() (data []byte, ok bool) {
	s := i.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for !i.closedLocked() && (len(i.queue) == 0 || s.start != processStarted) {
		s.cond.Wait()
	}
	if i.closedLocked() {
		return nil, false
	}
	data = i.queue[0].data
	i.queue[0] = stdinItem{}
	i.queue = i.queue[1:]
	return data, true
}

// sent makes room for n more bytes.
func (i *stdin) sent(n int) {
	s := i.session
	s.mu.Lock()
	defer s.mu.Unlock()
	i.bytes = max(0, i.bytes-n)
	s.cond.Broadcast()
}

// acquireCredit waits until the guest accepts stdin and returns how many of n
// bytes it accepts; 0 when the process reads no more.
func (i *stdin) acquireCredit(n int) int {
	s := i.session
	dialect := s.vm.conn.Dialect()
	n = min(n, dialect.MaxStdin())
	if !dialect.HasCredits() {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n > 0 && i.credit <= 0 && !i.closedLocked() {
		s.cond.Wait()
	}
	if i.closedLocked() {
		return 0
	}
	n = min(n, i.credit)
	i.credit -= n
	return n
}

// addCredit takes a grant of the guest. More than the window is a guest that
// cannot count; it harms itself alone.
func (i *stdin) addCredit(n uint32) {
	s := i.session
	s.mu.Lock()
	defer s.mu.Unlock()
	i.credit = int(min(int64(i.credit)+int64(n), hyperstart.CreditWindow))
	s.cond.Broadcast()
}

// send sends one piece. The C agents drop what does not fit into 512 bytes and
// cannot say so; two PING round trips after each piece give their single thread
// time to hand it on. There is no time limit: another command may keep that
// thread for long, and sending regardless would lose data.
func (i *stdin) send(piece []byte) error {
	s := i.session
	if err := s.vm.conn.WriteTTY(s.base, piece); err != nil {
		return err
	}
	switch s.vm.conn.Dialect() {
	case hyperstart.DialectHyperhq, hyperstart.DialectClearC:
	case hyperstart.DialectUnknown, hyperstart.DialectClearGo, hyperstart.DialectCCv2:
		return nil
	}
	if len(piece) == 0 {
		return nil
	}
	for range 2 {
		_, err := s.vm.conn.Command(context.Background(), hyperstart.Ping, nil)
		var refused *hyperstart.CommandError
		if err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}
