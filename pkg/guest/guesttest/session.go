package guesttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// errExited is why stdin goes nowhere.
var errExited = errors.New("process has exited")

// session is the [client.Session] of a process.
type session struct {
	guest          *Guest
	process        *Process // nil before it is created; guarded by guest.mu
	stdout, stderr *stream
	done           chan struct{} // closed by end

	mu            sync.Mutex // guards the fields below
	status        uint8
	err           error
	ended         bool
	stdin         []byte
	stdinClosed   chan struct{}
	rows, columns int
}

// OpenSession implements [client.Guest].
func (g *Guest) OpenSession(ctx context.Context) (client.Session, error) {
	if err := g.enter(ctx, Call{Method: "OpenSession"}); err != nil {
		return nil, err
	}
	s := &session{guest: g, stdout: newStream(), stderr: newStream(), done: make(chan struct{}), stdinClosed: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lostErr != nil { // meanwhile
		return nil, fmt.Errorf("OpenSession: %w", errors.Join(g.lostErr, errdefs.ErrUnavailable))
	}
	g.sessions = append(g.sessions, s)
	return s, nil
}

// Sessions returns how many sessions are open.
func (g *Guest) Sessions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sessions)
}

// end ends the session, once.
func (s *session) end(status uint8, err error) {
	s.mu.Lock()
	first := !s.ended
	if first {
		s.ended, s.status, s.err = true, status, err
	}
	s.mu.Unlock()
	if !first {
		return
	}
	s.stdout.end()
	s.stderr.end()
	close(s.done)
}

// Stdout implements [client.Session].
func (s *session) Stdout() client.Stream { return s.stdout }

// Stderr implements [client.Session].
func (s *session) Stderr() client.Stream { return s.stderr }

// Done implements [client.Session].
func (s *session) Done() <-chan struct{} { return s.done }

// Exit implements [client.Session].
func (s *session) Exit() (status uint8, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.err
}

// Close implements [client.Session].
func (s *session) Close() error {
	s.end(0, fmt.Errorf("%w: closed", client.ErrSessionLost))
	s.guest.mu.Lock()
	defer s.guest.mu.Unlock()
	s.guest.sessions = slices.DeleteFunc(s.guest.sessions, func(o *session) bool { return o == s })
	return nil
}

// WriteStdin implements [client.Session].
func (s *session) WriteStdin(ctx context.Context, r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		s.mu.Lock()
		ended := s.ended
		s.stdin = append(s.stdin, buf[:n]...)
		s.mu.Unlock()
		switch {
		case err == io.EOF: // io.Reader returns it bare
			return nil
		case err != nil:
			return fmt.Errorf("read stdin: %w", err)
		case ended:
			return errExited
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// CloseStdin implements [client.Session].
func (s *session) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stdinClosed:
	default:
		close(s.stdinClosed)
	}
	return nil
}

func (s *session) input() (text string, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stdinClosed:
		closed = true
	default:
	}
	return string(s.stdin), closed
}

func (s *session) waitInput(ctx context.Context) (string, error) {
	select {
	case <-s.stdinClosed:
		text, _ := s.input()
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Resize implements [client.Session].
func (s *session) Resize(ctx context.Context, rows, columns int) error {
	if err := s.guest.enter(ctx, Call{Method: "Resize"}); err != nil {
		return err
	}
	s.setSize(rows, columns)
	return nil
}

func (s *session) setSize(rows, columns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.columns = rows, columns
}

func (s *session) size() (rows, columns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows, s.columns
}

// stream is an output stream without bounds.
type stream struct {
	mu    sync.Mutex // guards the fields below
	cond  *sync.Cond // on mu
	data  []byte
	ended bool
}

func newStream() *stream {
	s := &stream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *stream) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.data = append(s.data, text...)
	}
	s.cond.Broadcast()
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.cond.Broadcast()
}

func (s *stream) next() ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.data) == 0 && !s.ended {
		s.cond.Wait()
	}
	data := s.data
	s.data = nil
	return data, len(data) > 0
}

// WriteTo implements [client.Stream].
func (s *stream) WriteTo(w io.Writer) (total int64, err error) {
	for {
		data, ok := s.next()
		if !ok {
			return total, nil
		}
		n, err := w.Write(data)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Discard implements [client.Stream].
func (s *stream) Discard() { _, _ = s.WriteTo(io.Discard) } // io.Discard never fails
