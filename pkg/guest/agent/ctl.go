package agent

import (
	"io"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// ctlWriter writes whole control messages, one write each.
type ctlWriter struct {
	mu  sync.Mutex // guards w and buf
	w   io.Writer
	buf []byte
}

// keepBuffer bounds what a writer keeps between messages, so that one large
// answer does not stay allocated.
const keepBuffer = 64 << 10

func (c *ctlWriter) send(code hyperstart.Code, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = hyperstart.AppendCtl(c.buf[:0], code, payload)
	if _, err := c.w.Write(c.buf); err != nil {
		// Without the control port the pod cannot be managed or ended.
		console.Fatal(err)
	}
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
}
