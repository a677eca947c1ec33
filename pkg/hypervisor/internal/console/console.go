package console

import (
	"strings"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
)

// Limits of what is kept. The guest writes it, so they bound what a hostile one can make
// the shim hold: 512 KiB.
const (
	maxLines   = 1024
	maxLineLen = 512
)

// Console keeps the last lines of a stream, made printable. It is an
// io.Writer that never fails and never blocks.
type Console struct {
	lines *history.Log[hypervisor.ConsoleLine]

	mu   sync.Mutex // guards what follows; held while a line is added
	line []byte     // the line that is being written
	esc  escState
}

// New returns a console without lines.
func New() *Console { return &Console{lines: history.New[hypervisor.ConsoleLine](maxLines)} }

// Lines are those that are complete.
func (c *Console) Lines() *history.Log[hypervisor.ConsoleLine] { return c.lines }

// escState is where the stream is in a terminal's escape sequence.
type escState int

const (
	escNone  escState = iota
	escStart          // after ESC
	escCSI            // after ESC [, up to the final byte
)

// Write implements io.Writer.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range p {
		c.put(b)
	}
	return len(p), nil
}

// put takes one byte. Escape sequences and control characters are left out and
// what is not ASCII becomes '?': the lines end up in logs and in error messages.
func (c *Console) put(b byte) {
	switch c.esc {
	case escStart:
		c.esc = escNone
		if b == '[' {
			c.esc = escCSI
		}
		return
	case escCSI:
		if b >= 0x40 && b <= 0x7e {
			c.esc = escNone
		}
		if b != '\n' {
			return
		}
		c.esc = escNone // no sequence spans lines
	case escNone:
	}
	switch {
	case b == '\n':
		c.push()
	case b == 0x1b:
		c.esc = escStart
	case len(c.line) >= maxLineLen:
	case b == '\t':
		c.line = append(c.line, ' ')
	case b < 0x20 || b == 0x7f:
	case b > 0x7f:
		c.line = append(c.line, '?')
	default:
		c.line = append(c.line, b)
	}
}

func (c *Console) push() {
	line := strings.TrimRight(string(c.line), " ")
	c.line = c.line[:0]
	c.lines.Add(hypervisor.ConsoleLine{Time: time.Now().UnixNano(), Text: line})
}

// Tail returns up to n last lines, oldest first, with an unfinished one.
func (c *Console) Tail(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines, _ := c.lines.From(0)
	all := make([]string, 0, len(lines)+1)
	for _, l := range lines {
		all = append(all, l.Text)
	}
	if len(c.line) > 0 {
		all = append(all, string(c.line))
	}
	return all[max(0, len(all)-max(n, 0)):]
}
