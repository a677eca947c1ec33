package proxyv1

import (
	"bytes"
	"fmt"
	"net"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// frames is a connection of version 2 on which one command is under way at a time.
type frames struct {
	conn net.Conn
	r    *proxyproto.Reader
	w    *proxyproto.Writer
}

func dial(server *proxy.Server) (*frames, error) {
	conn, err := server.Dial()
	if err != nil {
		return nil, fmt.Errorf("connect to the proxy: %w", err)
	}
	return &frames{conn: conn, r: proxyproto.NewReader(conn), w: proxyproto.NewWriter(conn)}, nil
}

func (f *frames) close() { _ = f.conn.Close() } // it has no errors

// ask sends a command and returns the payload of its response. A refusal has the text that
// the proxy gave.
func (f *frames) ask(cmd proxyproto.Command, payload any) ([]byte, error) {
	if err := f.w.WriteCommand(cmd, payload); err != nil {
		return nil, err
	}
	for {
		frame, err := f.r.ReadFrame()
		if err != nil {
			return nil, fmt.Errorf("the proxy has ended: %w", err)
		}
		if frame.Type == proxyproto.TypeResponse {
			return answerOf(frame)
		}
	}
}

// answerOf returns the payload of a response, or its error.
func answerOf(frame proxyproto.Frame) ([]byte, error) {
	if !frame.Error {
		return bytes.Clone(frame.Payload), nil
	}
	var refused proxyproto.ErrorResponse
	if err := frame.Decode(&refused); err != nil {
		return nil, err
	}
	return nil, refusal(refused.Msg)
}

// refusal is an error in the proxy's words.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }
