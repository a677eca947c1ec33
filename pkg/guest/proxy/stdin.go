package proxy

import (
	"bytes"
	"context"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// pushStdin takes data for the process; empty data closes its stdin. It blocks
// while too much waits already. An error means that the process has gone.
func (s *session) pushStdin(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.stdinBytes >= stdinBacklog && !s.ended {
		s.cond.Wait()
	}
	if s.ended {
		return errSessionEnded
	}
	s.stdin = append(s.stdin, stdinItem{data: bytes.Clone(data)})
	s.stdinBytes += len(data)
	s.cond.Broadcast()
	return nil
}

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
	for s.stdinBytes > below && !s.ended && ctx.Err() == nil {
		s.cond.Wait()
	}
	if s.ended {
		return errSessionEnded
	}
	return ctx.Err()
}

// pumpStdin sends stdin to the guest in order, in pieces that the guest can
// take, until the session ends.
func (s *session) pumpStdin() {
	for {
		s.mu.Lock()
		for !s.ended && (len(s.stdin) == 0 || !s.started) {
			s.cond.Wait()
		}
		if s.ended {
			s.mu.Unlock()
			return
		}
		data := s.stdin[0].data
		s.stdin = s.stdin[1:]
		s.mu.Unlock()
		if len(data) == 0 {
			_ = s.vm.conn.WriteTTY(s.base, nil) // a lost VM ends the session
			continue
		}
		for len(data) > 0 {
			n := s.takeCredit(len(data))
			if n == 0 {
				return
			}
			if err := s.sendStdin(data[:n]); err != nil {
				return
			}
			data = data[n:]
			s.mu.Lock()
			s.stdinBytes = max(0, s.stdinBytes-n)
			s.cond.Broadcast()
			s.mu.Unlock()
		}
	}
}

// takeCredit waits until the guest takes stdin and returns how many of n bytes
// it takes; 0 when the session has ended.
func (s *session) takeCredit(n int) int {
	dialect := s.vm.conn.Dialect()
	n = min(n, dialect.MaxStdin())
	if !dialect.HasCredits() {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.stdinCredit <= 0 && !s.ended {
		s.cond.Wait()
	}
	if s.ended {
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

// pingTimeout bounds the pacing below; a guest that does not answer a PING for
// so long is lost anyway.
const pingTimeout = 30 * time.Second

// sendStdin sends one piece. The C agents drop what does not fit into 512
// bytes and cannot say so; two PING round trips after each piece give their
// single thread time to hand it on.
func (s *session) sendStdin(piece []byte) error {
	if err := s.vm.conn.WriteTTY(s.base, piece); err != nil {
		return err
	}
	switch s.vm.conn.Dialect() {
	case hyperstart.DialectHyperhq, hyperstart.DialectClearC:
	case hyperstart.DialectUnknown, hyperstart.DialectClearGo, hyperstart.DialectCCv2:
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	for range 2 {
		if _, err := s.vm.conn.Command(ctx, hyperstart.Ping, nil); err != nil {
			return err
		}
	}
	return nil
}
