package commands

import (
	"io"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Writer writes whole control messages, one write each.
type Writer struct {
	mu  sync.Mutex // guards w and buf
	w   io.Writer
	buf []byte
}

// NewWriter returns a writer on the control port.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// keepBuffer bounds what a writer keeps between messages, so that one large
// answer does not stay allocated.
const keepBuffer = 64 << 10

// Send writes a message. An error ends the guest: without the control port the pod cannot be
// managed or ended.
func (c *Writer) Send(code hyperstart.Code, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = hyperstart.AppendCtl(c.buf[:0], code, payload)
	if _, err := c.w.Write(c.buf); err != nil {
		console.Fatal(err)
	}
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
}
