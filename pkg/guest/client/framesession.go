package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client/internal/commands"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// ErrSessionLost is the reason of a session that ended without an exit status.
var ErrSessionLost = errors.New("session lost")

// FrameSession is the client's end of one process: its streams, signals and exit.
type FrameSession struct {
	client *Frames
	conn   net.Conn
	w      *commands.Writer
	token  string

	Stdout *Output
	Stderr *Output

	done   chan struct{} // closed when the exit has come or the session is lost
	status uint8         // valid after done
	err    error         // why the session was lost; valid after done
	read   chan struct{} // closed when the reader has ended
}

// Connect acquires a new token, claims it and returns its session. The caller
// must Close it.
func (c *Frames) Connect(ctx context.Context) (*FrameSession, error) {
	token, err := c.newToken(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial()
	if err != nil {
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	w, r := proxyproto.NewWriter(conn), proxyproto.NewReader(conn)
	_, err = exchange(ctx, conn, w, r,
		command{proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}},
		command{proxyproto.CmdHyper, proxyproto.Hyper{HyperName: proxyproto.HyperCredit, Data: []byte("{}")}})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s := &FrameSession{
		client: c, conn: conn, token: token,
		w:    commands.New(w),
		done: make(chan struct{}), read: make(chan struct{}),
	}
	s.Stdout = newOutput(func(n int) { s.credit(proxyproto.Consumed{Stdout: n}) })
	s.Stderr = newOutput(func(n int) { s.credit(proxyproto.Consumed{Stderr: n}) })
	go s.readFrames(r)
	return s, nil
}

// Token names the session in commands that start its process.
func (s *FrameSession) Token() string { return s.token }

// Done is closed when the process has exited or the session is lost. Output
// that came before may still wait in Stdout and Stderr.
func (s *FrameSession) Done() <-chan struct{} { return s.done }

// Exit returns the exit status, or why there is none. It is valid once Done is
// closed.
func (s *FrameSession) Exit() (status uint8, err error) { return s.status, s.err }

// Close disconnects the session. It joins the reader; readers of the outputs
// get what is left and then io.EOF.
func (s *FrameSession) Close() error {
	_ = s.w.Do(func(w *proxyproto.Writer) error { // a lost connection is disconnected too
		return w.WriteCommand(proxyproto.CmdDisconnectShim, nil)
	})
	err := s.conn.Close()
	<-s.read
	return err
}

// fitsFrame reports whether a signal can be sent by a CmdSignal frame: numbers
// above [proxyproto.MaxSignal] have no room there, and with SIGWINCH it sets a
// terminal's size. Hyper commands carry the others.
func fitsFrame(signal int) bool {
	return signal <= proxyproto.MaxSignal && signal != int(unix.SIGWINCH)
}

// Signal sends a signal that fits a frame to the process.
func (s *FrameSession) Signal(ctx context.Context, signal int) error {
	return s.w.Command(ctx, proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: signal})
}

// Resize sets the size of the process's terminal in characters.
func (s *FrameSession) Resize(ctx context.Context, rows, columns int) error {
	return s.w.Command(ctx, proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: int(unix.SIGWINCH), Rows: rows, Columns: columns})
}

// stdinWindow is how much stdin may be under way between this end and the
// guest before the client waits.
const stdinWindow = 512 << 10

// WriteStdin copies r to the process's stdin until r ends, the process exits
// or ctx is done. It does not close the stdin.
func (s *FrameSession) WriteStdin(ctx context.Context, r io.Reader) error {
	buf := make([]byte, proxyproto.MaxStreamPayload)
	sent := 0
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := s.w.Do(func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStdin, buf[:n]) }); err != nil {
				return fmt.Errorf("proxy: write stdin: %w", err)
			}
			if sent += n + proxyproto.StdinOverhead; sent >= stdinWindow/2 {
				if _, err := s.client.Hyper(ctx, proxyproto.HyperDrainStdin, s.token, proxyproto.DrainStdin{Below: stdinWindow / 2}); err != nil {
					return err
				}
				sent = 0
			}
		}
		if err == io.EOF { // io.Reader returns it bare
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stdin: %w", err)
		}
	}
}

// CloseStdin closes the process's stdin after all that was written.
func (s *FrameSession) CloseStdin() error {
	return s.w.Do(func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStdin, nil) })
}

// credit reports to the proxy what was consumed. A lost session needs no credit.
func (s *FrameSession) credit(c proxyproto.Consumed) {
	data, err := proxyproto.Marshal(c)
	if err != nil {
		return
	}
	_ = s.w.Post(proxyproto.CmdHyper, proxyproto.Hyper{HyperName: proxyproto.HyperCredit, Data: data})
}

// readFrames is the session's reader. It never waits for a consumer.
func (s *FrameSession) readFrames(r *proxyproto.Reader) {
	defer close(s.read)
	err := s.readLoop(r)
	s.Stdout.end()
	s.Stderr.end()
	s.w.Fail(fmt.Errorf("%w: %w", ErrSessionLost, err))
	select {
	case <-s.done:
	default:
		s.err = fmt.Errorf("%w: %w", ErrSessionLost, err)
		close(s.done)
	}
}

func (s *FrameSession) readLoop(r *proxyproto.Reader) error {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return err
		}
		switch f.Type {
		case proxyproto.TypeStream:
			switch f.Stream() {
			case proxyproto.StreamStdout:
				s.Stdout.push(f.Payload)
			case proxyproto.StreamStderr:
				s.Stderr.push(f.Payload)
			case proxyproto.StreamStdin, proxyproto.StreamLog:
				return fmt.Errorf("proxy sent a frame of stream %s", f.Stream())
			}
		case proxyproto.TypeResponse:
			s.w.Answered(f.Err())
		case proxyproto.TypeNotification:
			status, err := proxyproto.ParseProcessExited(f.Payload)
			if err != nil {
				return err
			}
			s.exited(status)
		case proxyproto.TypeCommand:
			return fmt.Errorf("proxy sent a %s", f)
		}
	}
}

// exited takes the exit status; the first one counts.
func (s *FrameSession) exited(status uint8) {
	select {
	case <-s.done:
		return
	default:
	}
	s.status = status
	s.Stdout.end()
	s.Stderr.end()
	close(s.done)
}
