package operate

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

func socketOf(r record) string { return filepath.Join(r.dir.Path(), debugapi.Socket) }

// dialError says that a shim could not be reached.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// connection is one to a shim.
type connection struct {
	debugapi.DebugClient

	client *ttrpc.Client
}

// dialLimit bounds a connect, which the kernel does in place of a shim that hangs, unless
// too many have waited before.
const dialLimit = time.Second

// connect connects to the shim of a sandbox. The caller closes the connection.
func connect(ctx context.Context, r record) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socketOf(r))
	if err != nil {
		return nil, &dialError{err}
	}
	client := ttrpc.NewClient(conn)
	return &connection{DebugClient: debugapi.NewDebugClient(client), client: client}, nil
}

// Close closes the connection.
func (c *connection) Close() { _ = c.client.Close() } // nothing is left to be said

// activity is the id of all requests of this process, which is one command: by that they
// are found in the shims' log.
var activity = sync.OnceValue(func() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
})

// askInfo asks one shim what it knows; guest is whether it asks its guest as well.
func askInfo(ctx context.Context, r record, guest bool, limit time.Duration) (debugapi.Info, json.RawMessage, error) {
	var info debugapi.Info
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := connect(ctx, r)
	if err != nil {
		return info, nil, err
	}
	defer c.Close()
	answer, err := c.Info(ctx, &debugapi.InfoRequest{Guest: guest, Activity: activity()})
	if err != nil {
		return info, nil, err
	}
	if err := json.Unmarshal(answer.GetJson(), &info); err != nil {
		return info, nil, fmt.Errorf("decode information: %w", err)
	}
	return info, answer.GetJson(), nil
}
