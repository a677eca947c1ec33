package stdio

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Stdin reads what clients write to a fifo. Clients detach and attach again: a
// writer of our own keeps the fifo from ending with the last of them, as with
// runc's shim. It is closed by Finish, and then the stream ends with the last
// client.
//
// The first Read opens the fifo, for which clients wait. ctr, which has no task
// to close the stdin of before Create has answered, is held up by that until it
// has one.
type Stdin struct {
	path string

	mu       sync.Mutex // guards the fields below
	f        *os.File   // nil before the first Read
	keep     *os.File   // the writer of our own; nil for a file, before the first Read and after Finish
	finished bool
	closed   bool
}

// newStdin looks whether there is something to read from.
func newStdin(name string) (*Stdin, error) {
	u, err := parse(name)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "fifo" {
		return nil, fmt.Errorf("open stdin: %q is not a fifo", name)
	}
	in := &Stdin{path: u.Path}
	if _, err := os.Stat(in.path); err != nil {
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	return in, nil
}

// Read returns what clients wrote. It ends with io.EOF when nothing is left,
// Finish was called, and no client has the fifo open.
func (s *Stdin) Read(p []byte) (int, error) {
	f, err := s.open()
	if err != nil {
		return 0, err
	}
	return f.Read(p)
}

// open opens the fifo, once. A file such as /dev/null ends by itself.
func (s *Stdin) open() (_ *os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, os.ErrClosed
	}
	if s.f != nil {
		return s.f, nil
	}
	f, err := os.OpenFile(s.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&os.ModeNamedPipe != 0 && !s.finished {
		s.keep, err = os.OpenFile(s.path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	s.f = f
	return f, nil
}

// Finish ends the stream after what clients have written and what those write
// that have the fifo open. It is idempotent and does not wait.
func (s *Stdin) Finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	return s.closeKeepLocked()
}

func (s *Stdin) closeKeepLocked() error {
	if s.keep == nil {
		return nil
	}
	err := s.keep.Close()
	s.keep = nil
	if err != nil {
		return fmt.Errorf("close stdin: %w", err)
	}
	return nil
}

// Close closes the fifo and ends a Read. It is idempotent.
func (s *Stdin) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.closed
	s.finished, s.closed = true, true
	var err error
	if s.f != nil && first { // before keep: this is not the end of what clients wrote
		err = s.f.Close()
	}
	return errors.Join(err, s.closeKeepLocked())
}
