package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/fifo"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// Config is the stdio of one process as containerd gives it. Each of the three
// is "" for none, a path of a fifo, or a URI: fifo://, file:// or binary://.
type Config struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// Streams are the open streams of one process. Nil members are not wanted.
type Streams struct {
	Stdin  *Stdin
	Stdout io.WriteCloser
	Stderr io.WriteCloser

	logger *logger // reads Stdout and Stderr, or nil
}

// Open opens the streams, but for the stdin, which the first Read opens. A logging
// binary gets namespace and id. On error nothing stays open.
func Open(ctx context.Context, namespace, id string, c Config) (_ *Streams, err error) {
	if c.Terminal && c.Stderr != "" {
		c.Stderr = "" // the terminal has one stream
	}
	s := &Streams{}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if c.Stdin != "" {
		if s.Stdin, err = newStdin(c.Stdin); err != nil {
			return nil, err
		}
	}
	uri, err := parse(c.Stdout)
	if err != nil {
		return nil, err
	}
	readers, cancel := context.WithTimeout(ctx, firstReader) // of both fifos
	defer cancel()
	if uri.Scheme == "binary" {
		if s.logger, err = startLogger(ctx, namespace, id, uri); err != nil {
			return nil, err
		}
		s.Stdout, s.Stderr = s.logger.stdout, s.logger.stderr
		return s, nil
	}
	if c.Stdout != "" {
		if s.Stdout, err = openOutput(readers, c.Stdout); err != nil {
			return nil, err
		}
	}
	switch c.Stderr {
	case "":
	case c.Stdout:
		s.Stderr = &shared{WriteCloser: s.Stdout}
		s.Stdout = s.Stderr
	default:
		if s.Stderr, err = openOutput(readers, c.Stderr); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close closes all streams and waits for a logging binary to end. It is
// idempotent; what is written or read afterwards fails.
func (s *Streams) Close() error {
	var errs []error
	if s.Stdin != nil {
		errs = append(errs, s.Stdin.Close())
	}
	s.CloseOutput()
	if s.logger != nil {
		errs = append(errs, s.logger.wait())
	}
	kept := errs[:0]
	for _, err := range errs {
		if err != nil && !errors.Is(err, os.ErrClosed) {
			kept = append(kept, err)
		}
	}
	return errors.Join(kept...)
}

// Hangup closes all streams as [Streams.Close] does, and waits for nothing.
func (s *Streams) Hangup() {
	if s.Stdin != nil {
		_ = s.Stdin.Close() // nothing that was read could be lost
	}
	s.CloseOutput()
}

// CloseOutput closes stdout and stderr, which is how their readers learn of the
// end. It is idempotent.
func (s *Streams) CloseOutput() {
	for _, w := range []io.WriteCloser{s.Stdout, s.Stderr} {
		if w != nil {
			_ = w.Close() // nothing is buffered here that could be lost
		}
	}
}

// parse returns the URI of a stream; a bare path is a fifo.
func parse(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("stdio %q: %w", s, err)
	}
	switch u.Scheme {
	case "":
		u.Scheme, u.Path = "fifo", s // a path may contain what a URI escapes
	case "fifo", "file", "binary":
	default:
		return nil, fmt.Errorf("stdio %q: scheme %q is not one of fifo, file, binary", s, u.Scheme)
	}
	return u, nil
}

func openOutput(ctx context.Context, s string) (io.WriteCloser, error) {
	u, err := parse(s)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		if err := os.MkdirAll(filepath.Dir(u.Path), 0o755); err != nil {
			return nil, fmt.Errorf("open stdio: %w", err)
		}
		f, err := os.OpenFile(u.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open stdio: %w", err)
		}
		return f, nil
	case "fifo":
		return openFifo(ctx, u.Path)
	}
	return nil, fmt.Errorf("open stdio: %q is only possible for stdout", s)
}

// firstReader bounds the wait for the reader of a fifo. Clients open theirs
// before they ask for a process, or do so at the same time.
const firstReader = 10 * time.Second

// openFifo opens a fifo so that writing never fails because there is no reader. A
// path that is not a fifo, such as /dev/null, is opened for writing alone.
func openFifo(ctx context.Context, path string) (*os.File, error) {
	flags := os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		writer := awaitReader(ctx, path)
		defer func() { _ = writer.Close() }() // not before there is another one
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0) // non-blocking, so that Close ends a write
	if err != nil {
		return nil, fmt.Errorf("open stdio: %w", err)
	}
	return f, nil
}

// awaitReader waits until a client has opened a fifo for reading, and returns a
// writer, which the client waits for. A client that has gone must not hold up the
// process, so when ctx ends there is none.
func awaitReader(ctx context.Context, path string) io.Closer {
	if f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		return f
	}
	f, err := fifo.OpenFifo(ctx, path, os.O_WRONLY, 0)
	if err != nil {
		log.G(ctx).WithError(err).WithField("fifo", path).Warn("output has no reader yet")
		return io.NopCloser(nil)
	}
	return f
}

// shared is one writer that serves as stdout and stderr: os.File
// allows closing it twice, and closing ends a write that is blocked.
type shared struct {
	io.WriteCloser
	mu sync.Mutex // keeps the chunks of the two streams whole
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.WriteCloser.Write(p)
}
