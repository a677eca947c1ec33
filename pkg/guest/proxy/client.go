package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Client sends commands to a proxy, one connection per command as the original
// runtime does: commands run side by side, and ending a wait is closing a
// connection. It is safe for concurrent use.
type Client struct {
	dial func() (net.Conn, error)
	vm   string
}

// NewClient returns a client for one VM on connections from dial.
func NewClient(vm string, dial func() (net.Conn, error)) *Client {
	return &Client{dial: dial, vm: vm}
}

// Register registers the VM, whose two sockets must exist, and waits until the
// guest is ready or ctx ends.
func (c *Client) Register(ctx context.Context, ctlSocket, ttySocket string) error {
	_, err := c.commands(ctx, command{proxyproto.CmdRegisterVM, proxyproto.RegisterVM{
		ContainerID: c.vm, CtlSerial: ctlSocket, IOSerial: ttySocket,
	}})
	return err
}

// Unregister forgets the VM.
func (c *Client) Unregister(ctx context.Context) error {
	_, err := c.commands(ctx, command{proxyproto.CmdUnregisterVM, proxyproto.UnregisterVM{ContainerID: c.vm}})
	return err
}

// Hyper runs one command in the guest. token is "" for commands that start no
// process; data is marshalled as JSON, or nil. The answer is the guest's.
// Failures of the command are [*proxyproto.RemoteError].
func (c *Client) Hyper(ctx context.Context, name, token string, data any) ([]byte, error) {
	hyper := proxyproto.Hyper{HyperName: name}
	if token != "" {
		hyper.Tokens = []string{token}
	}
	if data != nil {
		var err error
		if hyper.Data, err = marshal(data); err != nil {
			return nil, err
		}
	}
	return c.commands(ctx,
		command{proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: c.vm}},
		command{proxyproto.CmdHyper, hyper})
}

// newToken asks for a token.
func (c *Client) newToken(ctx context.Context) (string, error) {
	payload, err := c.commands(ctx, command{proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: c.vm, NumIOStreams: 1}})
	if err != nil {
		return "", err
	}
	var r proxyproto.AttachVMResponse
	f := proxyproto.Frame{Payload: payload}
	if err := f.Decode(&r); err != nil {
		return "", err
	}
	if len(r.IO.Tokens) != 1 {
		return "", fmt.Errorf("attach to vm %s: got %d tokens, not 1", c.vm, len(r.IO.Tokens))
	}
	return r.IO.Tokens[0], nil
}

type command struct {
	cmd     proxyproto.Command
	payload any
}

// commands sends the commands one after the other on a connection of their own
// and returns the payload of the last response.
func (c *Client) commands(ctx context.Context, list ...command) ([]byte, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	w, r := proxyproto.NewWriter(conn), proxyproto.NewReader(conn)
	var payload []byte
	for _, next := range list {
		if payload, err = roundTrip(w, r, next); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("proxy: %s: %w", next.cmd, ctx.Err())
			}
			return nil, err
		}
	}
	return payload, nil
}

func roundTrip(w *proxyproto.Writer, r *proxyproto.Reader, c command) ([]byte, error) {
	if err := w.WriteCommand(c.cmd, c.payload); err != nil {
		return nil, fmt.Errorf("proxy: send %s: %w", c.cmd, err)
	}
	f, err := r.ReadFrame()
	if err != nil {
		return nil, fmt.Errorf("proxy: %s: %w", c.cmd, err)
	}
	if f.Type != proxyproto.TypeResponse || f.Command() != c.cmd {
		return nil, fmt.Errorf("proxy: %s: answered by %s", c.cmd, f)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return f.Payload, nil
}

// Session is the client's end of one process: its streams, signals and exit.
type Session struct {
	client *Client
	conn   net.Conn
	w      *sessionWriter
	token  string

	Stdout *Output
	Stderr *Output

	done   chan struct{} // closed when the exit has come or the session is lost
	status uint8         // valid after done
	err    error         // why the session was lost; valid after done
	read   chan struct{} // closed when the reader has ended
}

// Connect takes a new token, claims it and returns its session. The caller
// must Close it.
func (c *Client) Connect(ctx context.Context) (*Session, error) {
	token, err := c.newToken(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial()
	if err != nil {
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	r := proxyproto.NewReader(conn)
	w := proxyproto.NewWriter(conn)
	for _, next := range []command{
		{proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}},
		{proxyproto.CmdHyper, proxyproto.Hyper{HyperName: HyperCredit, Data: []byte("{}")}},
	} {
		if _, err := roundTrip(w, r, next); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	s := &Session{
		client: c, conn: conn, token: token,
		w:    &sessionWriter{w: w},
		done: make(chan struct{}), read: make(chan struct{}),
	}
	s.Stdout = newOutput(func(n int) { s.credit(Consumed{Stdout: n}) })
	s.Stderr = newOutput(func(n int) { s.credit(Consumed{Stderr: n}) })
	go s.readFrames(r)
	return s, nil
}

// Token names the session in commands that start its process.
func (s *Session) Token() string { return s.token }

// Done is closed when the process has exited or the session is lost. Output
// that came before may still wait in Stdout and Stderr.
func (s *Session) Done() <-chan struct{} { return s.done }

// Exit returns the exit status, or why there is none. It is valid once Done is
// closed.
func (s *Session) Exit() (status uint8, err error) { return s.status, s.err }

// Close disconnects the session. It joins the reader; readers of the outputs
// get what is left and then io.EOF.
func (s *Session) Close() error {
	_ = s.w.do(func(w *proxyproto.Writer) error { // a lost connection is disconnected too
		return w.WriteCommand(proxyproto.CmdDisconnectShim, nil)
	})
	err := s.conn.Close()
	<-s.read
	return err
}

// Signal sends a signal to the process. Numbers from 31 on do not fit the
// frame; the caller uses Hyper for them.
func (s *Session) Signal(ctx context.Context, signal int) error {
	return s.w.command(ctx, proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: signal})
}

// Resize sets the size of the process's terminal in characters.
func (s *Session) Resize(ctx context.Context, rows, columns int) error {
	const sigwinch = 28
	return s.w.command(ctx, proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: sigwinch, Rows: rows, Columns: columns})
}

// stdinWindow is how much stdin may be under way between this end and the
// guest before the client waits.
const stdinWindow = 512 << 10

// WriteStdin copies r to the process's stdin until r ends, the process exits
// or ctx is done. It does not close the stdin.
func (s *Session) WriteStdin(ctx context.Context, r io.Reader) error {
	buf := make([]byte, proxyproto.MaxStreamPayload)
	sent := 0
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := s.w.do(func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStdin, buf[:n]) }); err != nil {
				return fmt.Errorf("proxy: write stdin: %w", err)
			}
			if sent += n + stdinOverhead; sent >= stdinWindow/2 {
				if _, err := s.client.Hyper(ctx, HyperDrainStdin, s.token, DrainStdin{Below: stdinWindow / 2}); err != nil {
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

// CloseStdin closes the process's stdin behind all that was written.
func (s *Session) CloseStdin() error {
	return s.w.do(func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStdin, nil) })
}

// credit tells the proxy what was consumed. A lost session needs no credit.
func (s *Session) credit(c Consumed) {
	data, err := marshal(c)
	if err != nil {
		return
	}
	_ = s.w.post(proxyproto.CmdHyper, proxyproto.Hyper{HyperName: HyperCredit, Data: data})
}
