package proxy

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hangup"
)

// watch returns a context that ends when the client closes its connection, until stop is
// called. It is for commands that may take long: the connection's reader runs them, and so
// does not read meanwhile.
func (c *clientConn) watch(ctx context.Context) (_ context.Context, stop func()) {
	return hangup.Watch(ctx, c.conn)
}
