package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// ForwardName is the name by which the agent runs itself as a connection.
const ForwardName = "forward"

// Forward copies the standard streams to and from a TCP port of the loopback,
// and returns the exit status.
func Forward(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: forward PORT")
		return 2
	}
	if err := forward(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func forward(port string) error {
	conn, err := dialLoopback(context.Background(), port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	go func() {
		// Whatever ends the input, the other direction says how it ended.
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// dialTimeout bounds a connection that the guest's own firewall keeps waiting.
const dialTimeout = 10 * time.Second

// dialLoopback tries both families, as a client that was told "localhost" does.
func dialLoopback(ctx context.Context, port string) (*net.TCPConn, error) {
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err == nil {
			return conn.(*net.TCPConn), nil //nolint:forcetypeassert // "tcp"
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
