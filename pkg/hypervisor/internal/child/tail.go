package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// stderr is the standard error of a child: a pair of sockets. They are not a pipe, as
// who looks for the streams of containers that a shim has left open counts its pipes.
type stderr struct {
	child, own *os.File
	last       tail
	ended      chan struct{} // closed when nobody can write any more
}

func newStderr() (*stderr, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make sockets for the standard error: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	s := &stderr{
		own: os.NewFile(uintptr(fds[0]), "stderr"), child: os.NewFile(uintptr(fds[1]), "stderr"),
		last: tail{limit: stderrTail}, ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		_, _ = io.Copy(&s.last, s.own)
	}()
	return s, nil
}

// childHasIt closes the child's end here.
func (s *stderr) childHasIt() { _ = s.child.Close() }

// end waits for the end of all who can write, and returns what they wrote last.
func (s *stderr) end() string {
	<-s.ended
	_ = s.own.Close()
	return s.last.String()
}

// tail keeps the last bytes that were written to it. One goroutine writes, and is joined
// before it is read, so it needs no lock.
type tail struct {
	limit int
	data  []byte
	cut   bool
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String returns whole lines, without the first one if that was cut.
func (t *tail) String() string {
	s := string(t.data)
	if t.cut {
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.TrimSpace(s)
}
