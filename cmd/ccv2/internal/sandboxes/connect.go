package sandboxes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// SocketOf is the path of the debug socket of a sandbox.
func SocketOf(r Record) string { return filepath.Join(r.Dir.Path(), debugapi.Socket) }

// dialError says that a shim could not be reached.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// Connection is one to a shim.
type Connection struct {
	debugapi.DebugClient

	client *ttrpc.Client
}

// dialLimit bounds a connect, which the kernel does in place of a shim that hangs, unless
// too many have waited before.
const dialLimit = time.Second

// Connect connects to the shim of a sandbox. The caller closes the connection.
func Connect(ctx context.Context, r Record) (*Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", SocketOf(r))
	if err != nil {
		return nil, &dialError{err}
	}
	client := ttrpc.NewClient(conn)
	return &Connection{DebugClient: debugapi.NewDebugClient(client), client: client}, nil
}

// Stream is the context of a stream, which ends with the connection when ctx does. One that was canceled by itself the shim would not
// hear of, and the library would say on the terminal that nobody takes its messages.
func (c *Connection) Stream(ctx context.Context) context.Context {
	context.AfterFunc(ctx, c.Close)
	return context.WithoutCancel(ctx)
}

// Close closes the connection.
func (c *Connection) Close() { _ = c.client.Close() } // nothing is left to be said

// Activity is the id of all requests of this process, which is one command: by that they
// are found in the shims' log.
var Activity = sync.OnceValue(func() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
})

// AskCounters asks one shim what it has counted.
func AskCounters(ctx context.Context, r Record) (c debugapi.Counters, err error) {
	conn, err := Connect(ctx, r)
	if err != nil {
		return c, err
	}
	defer conn.Close()
	answer, err := conn.Counters(ctx, &debugapi.CountersRequest{Activity: Activity()})
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(answer.GetJson(), &c); err != nil {
		return c, fmt.Errorf("decode information: %w", err)
	}
	return c, nil
}

// AskInfo asks one shim what it knows; guest is whether it asks its guest as well.
func AskInfo(ctx context.Context, r Record, guest bool, limit time.Duration) (debugapi.Info, json.RawMessage, error) {
	var info debugapi.Info
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := Connect(ctx, r)
	if err != nil {
		return info, nil, err
	}
	defer c.Close()
	answer, err := c.Info(ctx, &debugapi.InfoRequest{Guest: guest, Activity: Activity()})
	if err != nil {
		return info, nil, err
	}
	if err := json.Unmarshal(answer.GetJson(), &info); err != nil {
		return info, nil, fmt.Errorf("decode information: %w", err)
	}
	return info, answer.GetJson(), nil
}
