package commands

import (
	"context"
	"fmt"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Writer writes a session's frames and matches responses, which come in
// the order of the commands. The session's reader, which takes the responses,
// never waits for a write: the proxy may be writing as well, and would then
// wait for the reader.
type Writer struct {
	wmu sync.Mutex // guards w, and so the order of frames; locked before mu
	w   *proxyproto.Writer

	mu      sync.Mutex   // guards the fields below
	waiting []chan error // one per command under way; nil when the answer is dropped
	err     error        // why no more answers come
}

// New returns a writer of frames on w.
func New(w *proxyproto.Writer) *Writer { return &Writer{w: w} }

// Do writes frames that are not answered.
func (s *Writer) Do(fn func(*proxyproto.Writer) error) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return fn(s.w)
}

// Post sends a command whose answer is dropped.
func (s *Writer) Post(cmd proxyproto.Command, payload any) error {
	return s.send(cmd, payload, nil)
}

// Command sends a command and waits for its answer.
func (s *Writer) Command(ctx context.Context, cmd proxyproto.Command, payload any) error {
	answer := make(chan error, 1)
	if err := s.send(cmd, payload, answer); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("proxy: %s: %w", cmd, ctx.Err())
	}
}

func (s *Writer) send(cmd proxyproto.Command, payload any, answer chan error) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.await(answer); err != nil {
		return err
	}
	if err := s.w.WriteCommand(cmd, payload); err != nil {
		return fmt.Errorf("proxy: send %s: %w", cmd, err)
	}
	return nil
}

// await notes that the next command is answered to answer.
func (s *Writer) await(answer chan error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.waiting = append(s.waiting, answer)
	}
	return s.err
}

// Answered takes the next response.
func (s *Writer) Answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	if first := s.waiting[0]; first != nil {
		first <- err
	}
	s.waiting = s.waiting[1:]
}

// Fail answers all commands that are under way.
func (s *Writer) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	for _, answer := range s.waiting {
		if answer != nil {
			answer <- err
		}
	}
	s.waiting = nil
}
