package proxyv1

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hangup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// maxOutput is how many bytes of output one tty message has at most: the original shim ends
// with an error where the message is longer than 10240.
const maxOutput = 10240 - hyperstart.TTYHeaderLen

// stream is what one allocateIO has given: a session of version 2 at one end, a descriptor of the
// client's at the other.
type stream struct {
	server *proxy.Server
	grace  time.Duration // see leaveGrace

	token string
	base  uint64 // the first number: stdin and stdout
	sides int    // 1 where stderr goes with stdout, else 2

	frames *frames
	conn   net.Conn // our end of the client's descriptor

	turn chan struct{} // of who writes to frames; capacity 1

	mu      sync.Mutex   // guards what follows
	waiting []chan error // for the answers to commands, in their order
	ended   bool         // nobody answers any longer
}

// open makes a stream with a token of its own. The file is the client's end of it. The token
// comes last: one that nobody has claimed cannot be given back.
func (p *Proxy) open(server *proxy.Server, id string, sides int, newToken func() (string, error)) (_ *stream, _ *os.File, err error) {
	s := &stream{server: server, grace: p.grace, sides: sides, turn: make(chan struct{}, 1)}
	if s.frames, err = dial(server); err != nil {
		return nil, nil, err
	}
	file, err := s.connect()
	if err != nil {
		s.frames.close()
		return nil, nil, err
	}
	s.frames.w = proxyproto.NewWriter(&input{stream: s})
	if err = p.add(id, s); err == nil {
		if err = s.claim(newToken); err != nil {
			p.remove(id, s)
		}
	}
	if err != nil {
		s.frames.close()
		_ = s.conn.Close()
		_ = file.Close()
		return nil, nil, err
	}
	left, ended := make(chan struct{}), make(chan struct{})
	p.wg.Go(func() {
		defer close(left)
		s.readClient()
		s.disconnect(ended)
	})
	p.wg.Go(func() {
		s.readSession()
		close(ended)
		s.endAnswers()
		_ = s.conn.Close() // ends the other one
		<-left
		s.frames.close()
		p.remove(id, s)
	})
	return s, file, nil
}

// claim gets a token and its session.
func (s *stream) claim(newToken func() (string, error)) (err error) {
	if s.token, err = newToken(); err != nil {
		return err
	}
	_, err = s.frames.ask(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: s.token})
	return err
}

// connect makes the client's descriptor.
func (s *stream) connect() (*os.File, error) {
	// The client's end blocks, as the original's.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("allocate streams: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "proxy-io")
	ours := os.NewFile(uintptr(fds[0]), "proxy-io")
	defer func() { _ = ours.Close() }() // FileConn has its own
	if s.conn, err = net.FileConn(ours); err != nil {
		_ = theirs.Close()
		return nil, fmt.Errorf("allocate streams: %w", err)
	}
	return theirs, nil
}

// readClient passes on stdin until the client closes its end, or breaks the protocol.
func (s *stream) readClient() {
	r := hyperstart.NewTTYReader(bufio.NewReader(s.conn))
	for {
		seq, payload, err := r.Read()
		if err != nil || seq != s.base {
			return
		}
		if s.write(func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStdin, payload) }) != nil {
			return
		}
	}
}

// write writes to the session. It waits as long as the process takes no input.
func (s *stream) write(fn func(*proxyproto.Writer) error) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return fn(s.frames.w)
}

// disconnect frees the session's token. The proxy closes the connection then. It may not get to read that:
// it is behind the input of a process that does not read.
func (s *stream) disconnect(ended <-chan struct{}) {
	err := s.write(func(w *proxyproto.Writer) error { return w.WriteCommand(proxyproto.CmdDisconnectShim, nil) })
	if err != nil {
		s.frames.close()
		return
	}
	select {
	case <-ended:
	case <-time.After(s.grace):
		s.server.Free(s.token)
	}
}

// readSession passes on output and the exit until the session ends.
func (s *stream) readSession() {
	for {
		f, err := s.frames.r.ReadFrame()
		if err != nil {
			return
		}
		switch f.Type {
		case proxyproto.TypeStream:
			err = s.output(f)
		case proxyproto.TypeNotification:
			err = s.exited(f)
		case proxyproto.TypeResponse:
			_, refused := answerOf(f)
			s.answered(refused)
		case proxyproto.TypeCommand:
		}
		if err != nil {
			// The client has closed its end: what is left is read, so that the session ends.
			_ = s.conn.Close()
		}
	}
}

// output writes tty messages for output.
func (s *stream) output(f proxyproto.Frame) error {
	seq := s.base
	if f.Stream() == proxyproto.StreamStderr && s.sides == 2 {
		seq++
	}
	for data := f.Payload; len(data) > 0; {
		n := min(len(data), maxOutput)
		if err := s.send(hyperstart.AppendTTY(nil, seq, data[:n])); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// exited writes the end of the output, and the exit status behind it.
func (s *stream) exited(f proxyproto.Frame) error {
	if len(f.Payload) == 0 {
		return nil
	}
	b := hyperstart.AppendTTY(nil, s.base, nil)
	return s.send(hyperstart.AppendTTY(b, s.base, f.Payload[:1]))
}

// lookEvery is how often who waits for a client that does not read looks whether there is still
// a session.
const lookEvery = 200 * time.Millisecond

// send writes to the client, as long as the session lasts.
func (s *stream) send(b []byte) error {
	for {
		if err := s.conn.SetWriteDeadline(time.Now().Add(lookEvery)); err != nil {
			return err
		}
		n, err := s.conn.Write(b)
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if hangup.Has(s.frames.conn) {
			return errNoProcess
		}
	}
}

// errNoProcess says why a command has no answer.
var errNoProcess = errors.New("the process has exited, or its streams were closed")

// resizeLimit bounds the wait for an answer, which comes behind the output: a client that does
// not read its output does not get it.
const resizeLimit = 30 * time.Second

// resize sets the size of the terminal.
func (s *stream) resize(rows, columns int) error {
	size := proxyproto.Signal{SignalNumber: int(unix.SIGWINCH), Rows: rows, Columns: columns}
	if err := size.Validate(); err != nil {
		return err
	}
	limit := time.After(resizeLimit)
	select {
	case s.turn <- struct{}{}:
	case <-limit:
		return errors.New("resize the terminal: the process takes no input, and what is sent is behind it")
	}
	answer, err := s.ask(size)
	<-s.turn
	if err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-limit:
		return errors.New("resize the terminal: no answer, read the output that is there")
	}
}

// ask sends a signal; the answer comes later. The turn is the caller's.
func (s *stream) ask(signal proxyproto.Signal) (<-chan error, error) {
	answer := make(chan error, 1)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil, errNoProcess
	}
	s.waiting = append(s.waiting, answer)
	s.mu.Unlock()
	return answer, s.frames.w.WriteCommand(proxyproto.CmdSignal, signal)
}

// answered passes on the answer to the first command that waits for one.
func (s *stream) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		s.waiting[0] <- err
		s.waiting = s.waiting[1:]
	}
}

// endAnswers answers all commands that wait.
func (s *stream) endAnswers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, answer := range s.waiting {
		answer <- errNoProcess
	}
	s.waiting = nil
}
