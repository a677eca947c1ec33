package proxy

import (
	"bytes"
	"context"
	"errors"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// stdinItem is data for the process; no data closes its stdin.
type stdinItem struct{ data []byte }

// pushStdin takes data for the process; empty data closes its stdin. It blocks
// while too much waits already. An error means that the process has gone.
func (s *session) pushStdin(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.stdinBytes >= stdinBacklog && !s.noStdinLocked() {
		s.cond.Wait()
	}
	if s.noStdinLocked() {
		return errSessionEnded
	}
	s.stdin = append(s.stdin, stdinItem{data: bytes.Clone(data)})
	s.stdinBytes += len(data) + proxyproto.StdinOverhead
	s.cond.Broadcast()
	return nil
}

// noStdinLocked reports whether nobody will ever read stdin any more.
func (s *session) noStdinLocked() bool { return s.ended || s.exited }

// drainStdin waits until at most below bytes of stdin wait for the guest.
func (s *session) drainStdin(ctx context.Context, below int) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cond.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.stdinBytes > below && !s.noStdinLocked() && ctx.Err() == nil {
		s.cond.Wait()
	}
	if s.noStdinLocked() {
		return errSessionEnded
	}
	return ctx.Err()
}

// pumpStdin sends stdin to the guest in order, in pieces that the guest can
// take, until nobody reads it any more.
func (s *session) pumpStdin() {
	for {
		data, ok := s.nextStdin()
		if !ok {
			return
		}
		for first := true; first || len(data) > 0; first = false {
			n := s.takeCredit(len(data))
			if n == 0 && len(data) > 0 {
				return
			}
			if err := s.sendStdin(data[:n]); err != nil {
				return // a lost VM ends the session
			}
			data = data[n:]
			s.stdinSent(n)
		}
		s.stdinSent(proxyproto.StdinOverhead)
	}
}

// nextStdin waits for the next item and for the start of the process.
func (s *session) nextStdin() (data []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.noStdinLocked() && (len(s.stdin) == 0 || !s.started) {
		s.cond.Wait()
	}
	if s.noStdinLocked() {
		return nil, false
	}
	data = s.stdin[0].data
	s.stdin[0] = stdinItem{}
	s.stdin = s.stdin[1:]
	return data, true
}

// stdinSent makes room for n more bytes.
func (s *session) stdinSent(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stdinBytes = max(0, s.stdinBytes-n)
	s.cond.Broadcast()
}

// takeCredit waits until the guest takes stdin and returns how many of n bytes
// it takes; 0 when nobody reads any more.
func (s *session) takeCredit(n int) int {
	dialect := s.vm.conn.Dialect()
	n = min(n, dialect.MaxStdin())
	if !dialect.HasCredits() {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n > 0 && s.stdinCredit <= 0 && !s.noStdinLocked() {
		s.cond.Wait()
	}
	if s.noStdinLocked() {
		return 0
	}
	n = min(n, s.stdinCredit)
	s.stdinCredit -= n
	return n
}

// addStdinCredit takes a grant of the guest. More than the window is a guest
// that cannot count; it harms nobody but itself.
func (s *session) addStdinCredit(n uint32) {
	s.mu.Lock()
	s.stdinCredit = int(min(int64(s.stdinCredit)+int64(n), hyperstart.CreditWindow))
	s.cond.Broadcast()
	s.mu.Unlock()
}

// sendStdin sends one piece. The C agents drop what does not fit into 512
// bytes and cannot say so; two PING round trips after each piece give their
// single thread time to hand it on. There is no time limit: another command may
// keep that thread for long, and sending on regardless would lose data.
func (s *session) sendStdin(piece []byte) error {
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
