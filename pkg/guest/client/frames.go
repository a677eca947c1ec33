package client

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Frames is a client of a proxy for one VM that speaks in frames and knows no payloads. It uses one
// connection per command as the original runtime does: commands run side by side, and a caller that gives up
// closes its connection, which is how the proxy notices it. It is safe for concurrent use.
type Frames struct {
	dial func() (net.Conn, error)
	vm   string
}

// NewFrames returns a client for one VM on connections from dial.
func NewFrames(vm string, dial func() (net.Conn, error)) *Frames {
	return &Frames{dial: dial, vm: vm}
}

// Register registers the VM, whose two sockets must exist, and waits until the
// guest is ready or ctx ends.
func (c *Frames) Register(ctx context.Context, ctlSocket, ttySocket string) error {
	_, err := c.commands(ctx, command{proxyproto.CmdRegisterVM, proxyproto.RegisterVM{
		ContainerID: c.vm, CtlSerial: ctlSocket, IOSerial: ttySocket,
	}})
	return err
}

// Hyper runs one command in the guest. token is "" for commands that start no
// process; data is marshalled as JSON, or nil. The answer is the guest's.
// Failures of the command are [*proxyproto.RemoteError].
func (c *Frames) Hyper(ctx context.Context, name, token string, data any) (answer []byte, err error) {
	a := activity.Of(ctx)
	defer a.Part("guest "+name, &err)()
	hyper := proxyproto.Hyper{HyperName: name, Activity: a.ID, Verbose: a.Verbose}
	if token != "" {
		hyper.Tokens = []string{token}
	}
	if data != nil {
		if hyper.Data, err = proxyproto.Marshal(data); err != nil {
			return nil, err
		}
	}
	return c.commands(ctx,
		command{proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: c.vm}},
		command{proxyproto.CmdHyper, hyper})
}

// newToken asks for a token.
func (c *Frames) newToken(ctx context.Context) (string, error) {
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
func (c *Frames) commands(ctx context.Context, list ...command) ([]byte, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return exchange(ctx, conn, proxyproto.NewWriter(conn), proxyproto.NewReader(conn), list...)
}

// exchange sends the commands one after the other and returns the payload of the
// last response. After an error the connection is of no use.
func exchange(ctx context.Context, conn net.Conn, w *proxyproto.Writer, r *proxyproto.Reader, list ...command) (payload []byte, err error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if stop() {
			return
		}
		<-interrupted
		if err == nil { // it came with the last response
			err = conn.SetDeadline(time.Time{})
		}
	}()
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
