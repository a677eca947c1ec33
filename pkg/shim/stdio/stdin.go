package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stdin reads what clients write to a fifo. It ends when the last client has
// closed the fifo, as with runc's shim: ctr may be done before it can send
// CloseIO. The stdin of a terminal does not end in that way, since clients
// attach and detach; and none ends before a first client was there.
type Stdin struct {
	f *os.File

	mu       sync.Mutex // guards the fields below
	awaiting bool       // no client has been there yet
	keep     *os.File   // a writer of our own, which keeps the fifo from ending
	finished bool
}

func openStdin(s string, terminal bool) (*Stdin, error) {
	u, err := parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "fifo" {
		return nil, fmt.Errorf("open stdin: %q is not a fifo", s)
	}
	f, err := os.OpenFile(u.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	in := &Stdin{f: f}
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe == 0 {
		return in, nil // a file such as /dev/null ends by itself
	}
	if !terminal {
		in.awaiting = true
		return in, nil
	}
	if in.keep, err = os.OpenFile(u.Path, os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	return in, nil
}

// Read returns what clients wrote. It ends with io.EOF when nothing is left
// and the clients have gone or Finish was called.
func (s *Stdin) Read(p []byte) (int, error) {
	if err := s.awaitClient(); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return s.readRest(p)
		}
		return 0, err
	}
	n, err := s.f.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) { // set by Finish
		return s.readRest(p)
	}
	return n, err
}

// awaitClient waits until a client has opened the fifo and has written to it or
// closed it. The kernel reports neither data nor an end to a reader that was
// there before the first writer, while read(2) would say "end".
func (s *Stdin) awaitClient() error {
	s.mu.Lock()
	awaiting := s.awaiting
	s.mu.Unlock()
	if !awaiting {
		return nil
	}
	raw, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.awaiting = false
	s.mu.Unlock()
	return nil
}

// readRest reads without waiting: after Finish only what is in the pipe counts,
// even if a client still holds it open.
func (s *Stdin) readRest(p []byte) (n int, err error) {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), p) })
	switch {
	case cerr != nil:
		return 0, cerr
	case errors.Is(err, unix.EAGAIN), n == 0 && err == nil:
		return 0, io.EOF
	case err != nil:
		return 0, fmt.Errorf("read stdin: %w", err)
	}
	return n, nil
}

// Finish ends the stream after what clients have written so far. It is
// idempotent and does not wait.
func (s *Stdin) Finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return nil
	}
	s.finished = true
	if s.keep != nil {
		_ = s.keep.Close()
	}
	if err := s.f.SetReadDeadline(time.Unix(1, 0)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return fmt.Errorf("close stdin: %w", err)
	}
	return nil
}

// Close closes the fifo and ends a Read.
func (s *Stdin) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	if s.keep != nil {
		_ = s.keep.Close()
	}
	return s.f.Close()
}
