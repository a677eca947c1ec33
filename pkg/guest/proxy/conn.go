package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// errDisconnected ends a connection after DisconnectShim.
var errDisconnected = errors.New("client disconnected")

// clientConn is one connection of a client. Its reader is the goroutine that
// runs Serve; session writers write to it too.
type clientConn struct {
	server  *Server
	conn    net.Conn
	failure failure
	own     bool // of who runs the server

	wmu sync.Mutex // guards w, and so the order of frames
	w   *proxyproto.Writer

	vm      *vm      // attached VM; the reader's own
	session *session // claimed session; the reader's own
}

// write runs one write under the lock. After an error nothing more is written.
func (c *clientConn) write(fn func(*proxyproto.Writer) error) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return fn(c.w)
}

// hasHungUp reports whether an error of a connection says that the other end was closed.
func hasHungUp(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// answer is write for the reader, which goes on when the client has hung up: a command that
// is behind may be the last signal of a shim, which waits for no answer.
func (c *clientConn) answer(fn func(*proxyproto.Writer) error) error {
	err := c.write(fn)
	if hasHungUp(err) {
		return nil
	}
	return err
}

// detach gives the session back when the connection has ended.
func (c *clientConn) detach() {
	if c.session != nil {
		c.session.detach(c)
	}
}

// handle takes one frame. An error ends the connection.
func (c *clientConn) handle(f proxyproto.Frame) error {
	switch f.Type {
	case proxyproto.TypeCommand:
		return c.command(f)
	case proxyproto.TypeStream:
		return c.stream(f)
	case proxyproto.TypeResponse, proxyproto.TypeNotification:
	}
	return fmt.Errorf("client sent a %s, which only the proxy may send", f.Type)
}

func (c *clientConn) stream(f proxyproto.Frame) error {
	switch f.Stream() {
	case proxyproto.StreamStdin:
		if c.session == nil {
			return errors.New("client sent stdin without having claimed a token")
		}
		err := c.session.stdin.push(f.Payload, func() (context.Context, func()) { return c.watch(c.server.ctx) })
		if errors.Is(err, errSessionEnded) {
			return nil // the process has exited, its stdin is dropped
		}
		return err
	case proxyproto.StreamLog:
		var entry proxyproto.LogEntry
		if err := f.Decode(&entry); err != nil {
			return err
		}
		if err := entry.Validate(); err != nil {
			return err
		}
		if c.server.opts.Log != nil {
			c.server.opts.Log(entry)
		}
		return nil
	case proxyproto.StreamStdout, proxyproto.StreamStderr:
	}
	return fmt.Errorf("client sent a frame of stream %s", f.Stream())
}

// command runs one command and answers it.
func (c *clientConn) command(f proxyproto.Frame) error {
	cmd := f.Command()
	if cmd == proxyproto.CmdDisconnectShim && c.session != nil {
		c.disconnect()
		return errDisconnected
	}
	if cmd == proxyproto.CmdConnectShim {
		// Output that waits for this client must not overtake the response.
		return c.answer(func(w *proxyproto.Writer) error { return c.respond(w, cmd, nil, c.connectShim(f)) })
	}
	payload, err := c.run(c.server.ctx, f)
	return c.answer(func(w *proxyproto.Writer) error { return c.respond(w, cmd, payload, err) })
}

// disconnect frees the session. Stdin that the client has sent before gets to the process, which may not
// read it: that is waited for as long as for other things.
func (c *clientConn) disconnect() {
	if c.session.isStarted() {
		ctx, cancel := context.WithTimeout(c.server.ctx, claimTimeout)
		defer cancel()
		_ = c.session.stdin.drain(ctx, 0) // of a process that has exited, or does not read
	}
	c.session.vm.drop(c.session)
}

// respond writes the response to a command.
func (c *clientConn) respond(w *proxyproto.Writer, cmd proxyproto.Command, payload any, err error) error {
	if err != nil {
		return w.WriteError(cmd, c.failure(cmd, err))
	}
	return w.WriteResponseJSON(cmd, payload)
}

// run returns the payload of the response: nil, raw bytes, or a value for JSON.
func (c *clientConn) run(ctx context.Context, f proxyproto.Frame) (any, error) {
	switch f.Command() {
	case proxyproto.CmdRegisterVM:
		return c.register(ctx, f)
	case proxyproto.CmdAttachVM:
		return c.attach(f)
	case proxyproto.CmdUnregisterVM:
		var r proxyproto.UnregisterVM
		if err := f.Decode(&r); err != nil {
			return nil, err
		}
		if err := c.server.unregister(r.ContainerID); err != nil {
			return nil, err
		}
		c.vm = nil
		return nil, nil
	case proxyproto.CmdHyper:
		return c.hyper(ctx, f)
	case proxyproto.CmdSignal:
		return nil, c.signal(ctx, f)
	case proxyproto.CmdDisconnectShim:
		return nil, errors.New("client isn't a shim")
	case proxyproto.CmdConnectShim: // see command
	}
	return nil, fmt.Errorf("no handler for command %s", f.Command())
}

func (c *clientConn) register(ctx context.Context, f proxyproto.Frame) (any, error) {
	var r proxyproto.RegisterVM
	if err := f.Decode(&r); err != nil {
		return nil, err
	}
	ctx, stop := c.watch(ctx)
	defer stop()
	v, err := c.server.register(ctx, r)
	if err != nil {
		return nil, err
	}
	c.vm = v
	tokens, err := v.newTokens(r.NumIOStreams, c.own)
	return proxyproto.RegisterVMResponse{IO: proxyproto.IOResponse{URL: c.server.opts.URL, Tokens: tokens}}, err
}

func (c *clientConn) attach(f proxyproto.Frame) (any, error) {
	var r proxyproto.AttachVM
	if err := f.Decode(&r); err != nil {
		return nil, err
	}
	v, err := c.server.find(r.ContainerID)
	if err != nil {
		return nil, err
	}
	c.vm = v
	tokens, err := v.newTokens(r.NumIOStreams, c.own)
	return proxyproto.AttachVMResponse{IO: proxyproto.IOResponse{URL: c.server.opts.URL, Tokens: tokens}}, err
}

func (c *clientConn) connectShim(f proxyproto.Frame) error {
	var r proxyproto.ConnectShim
	if err := f.Decode(&r); err != nil {
		return err
	}
	if c.session != nil {
		return errors.New("client is a shim already")
	}
	s, err := c.server.claim(r.Token, c)
	if err != nil {
		return err
	}
	c.session = s
	return nil
}

// signal is the Signal command of a session.
func (c *clientConn) signal(ctx context.Context, f proxyproto.Frame) error {
	if c.session == nil {
		return errors.New("client isn't a shim")
	}
	var sig proxyproto.Signal
	if err := f.Decode(&sig); err != nil {
		return err
	}
	if err := sig.Validate(); err != nil {
		return err
	}
	s := c.session
	number := syscall.Signal(sig.SignalNumber)
	if !s.isStarted() && (number == syscall.SIGKILL || number == syscall.SIGTERM) {
		// The process will never run; to its shim that is an exit.
		return c.answer(func(w *proxyproto.Writer) error { return w.WriteProcessExited(0) })
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	watched, stop := c.watch(ctx)
	err := s.waitStarted(watched)
	stop() // the signal may be the last thing that a shim says
	if err != nil {
		return worded{errors.New("timeout waiting for the process to start"), "timeout waiting for process with token " + s.token}
	}
	code, payload, err := s.signalCommand(sig)
	if err != nil {
		return err
	}
	_, err = s.vm.conn.Command(ctx, code, payload)
	return err
}
