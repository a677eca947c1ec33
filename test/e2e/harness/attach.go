//go:build e2e

package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Channels of a stream, each in front of a message as one byte.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel // how it ended
	resizeChannel
)

// Stream is a client's end of an attach or an exec, as kubectl's.
type Stream struct {
	Out, Err Buffer
	conn     *websocket.Conn
	done     chan struct{} // closed when reading has ended
}

// Attach attaches to the container's init process.
func (c *PodContainer) Attach(tb testing.TB) *Stream {
	tb.Helper()
	s := &Stream{conn: c.dialAttach(tb), done: make(chan struct{})}
	go s.read()
	tb.Cleanup(s.Detach)
	return s
}

// AttachStuck attaches, and reads nothing until detach is called.
func (c *PodContainer) AttachStuck(tb testing.TB) (detach func()) {
	tb.Helper()
	conn := c.dialAttach(tb)
	detach = func() { _ = conn.Close() } // again is no harm
	tb.Cleanup(detach)
	return detach
}

func (c *PodContainer) dialAttach(tb testing.TB) *websocket.Conn {
	tb.Helper()
	r, err := c.pod.cri.Runtime.Attach(context.Background(), &runtimeapi.AttachRequest{
		ContainerId: c.ID, Stdin: c.Config.Stdin, Stdout: true, Stderr: !c.Config.Tty, Tty: c.Config.Tty,
	})
	if err != nil {
		tb.Fatalf("attach: %v", err)
	}
	conn, err := c.pod.cri.dialStream(r.Url)
	if err != nil {
		tb.Fatalf("attach: %v", err)
	}
	return conn
}

// ExecTTY runs a command with a terminal.
func (c *PodContainer) ExecTTY(tb testing.TB, args ...string) *Stream {
	tb.Helper()
	r, err := c.pod.cri.Runtime.Exec(context.Background(), &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: args, Tty: true, Stdin: true, Stdout: true,
	})
	if err != nil {
		tb.Fatalf("exec: %v", err)
	}
	conn, err := c.pod.cri.dialStream(r.Url)
	if err != nil {
		tb.Fatalf("exec: %v", err)
	}
	s := &Stream{conn: conn, done: make(chan struct{})}
	go s.read()
	tb.Cleanup(s.Detach)
	return s
}

// dialStream connects to the daemon's server of streams, which listens on the
// loopback of its network namespace.
func (c *CRI) dialStream(address string) (*websocket.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = osthread.RunInNetNS(c.net, func() (err error) {
		conn, err = net.Dial("tcp", u.Host) //nolint:noctx // a loopback does not keep anybody waiting
		return err
	})
	if err != nil {
		return nil, err
	}
	u.Scheme = "ws"
	config, err := websocket.NewConfig(u.String(), "http://"+u.Host)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	config.Protocol = []string{"v4.channel.k8s.io"}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ws, nil
}

func (s *Stream) read() {
	defer close(s.done)
	for {
		var message []byte
		if err := websocket.Message.Receive(s.conn, &message); err != nil || len(message) == 0 {
			return
		}
		switch message[0] {
		case stdoutChannel:
			_, _ = s.Out.Write(message[1:]) // a Buffer takes everything
		case stderrChannel:
			_, _ = s.Err.Write(message[1:])
		case errorChannel:
			if len(message) > 1 {
				return
			}
		}
	}
}

func (s *Stream) send(tb testing.TB, channel byte, text string) {
	tb.Helper()
	if err := websocket.Message.Send(s.conn, append([]byte{channel}, text...)); err != nil {
		tb.Fatalf("send to the stream: %v", err)
	}
}

// Type sends input.
func (s *Stream) Type(tb testing.TB, text string) {
	tb.Helper()
	s.send(tb, stdinChannel, text)
}

// Resize sets the size of the terminal.
func (s *Stream) Resize(tb testing.TB, columns, rows int) {
	tb.Helper()
	s.send(tb, resizeChannel, fmt.Sprintf(`{"Width":%d,"Height":%d}`, columns, rows))
}

// Detach goes away without a word.
func (s *Stream) Detach() {
	_ = s.conn.Close() // again is no harm
	<-s.done
}

// Ended reports whether the other side has ended the stream.
func (s *Stream) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
