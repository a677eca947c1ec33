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
	// Of what those who watch have not read yet 64 KiB are kept.
	maxPieces = 64
	maxChunk  = 1 << 10
)

// Console keeps the last lines of a stream, made printable. It is an
// io.Writer that never fails and never blocks.
type Console struct {
	lines *history.Log[hypervisor.ConsoleLine]

	mu   sync.Mutex // guards what follows; held while a line is added
	line []byte     // the line that is being written
	esc  escState
	live *history.Log[string] // what comes, while somebody watches; nil otherwise
	seen int                  // how many do
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
	var chunk []byte // of what those who watch get
	for _, b := range p {
		if shown := c.put(b); shown != 0 && c.live != nil {
			chunk = append(chunk, shown)
		}
		if len(chunk) == maxChunk {
			c.live.Add(string(chunk))
			chunk = chunk[:0]
		}
	}
	if len(chunk) > 0 {
		c.live.Add(string(chunk))
	}
	return len(p), nil
}

// Watch has what comes from now on, made harmless for a terminal but as it is written, in pieces of which the last ones are kept for a
// reader that is slow. It begins with the line that is being written. stop ends it.
func (c *Console) Watch() (pieces *history.Log[string], from uint64, begin string, stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == nil {
		c.live = history.New[string](maxPieces)
	}
	c.seen++
	return c.live, c.live.Count(), string(c.line), sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.seen--; c.seen == 0 {
			c.live = nil
		}
	})
}

// put takes one byte, and returns what a terminal may have of it, or 0. The lines end up in logs and in error messages: they
// have no control characters at all.
func (c *Console) put(b byte) (shown byte) {
	shown = c.filter(b)
	switch {
	case shown == '\n':
		c.push()
	case len(c.line) >= maxLineLen:
	case shown == '\t':
		c.line = append(c.line, ' ')
	case shown >= ' ':
		c.line = append(c.line, shown)
	}
	return shown
}

// filter leaves out escape sequences and control characters, but for those that move to where something was written
// before, and makes '?' of what is not ASCII.
func (c *Console) filter(b byte) byte {
	switch c.esc {
	case escStart:
		c.esc = escNone
		if b == '[' {
			c.esc = escCSI
		}
		return 0
	case escCSI:
		if b >= 0x40 && b <= 0x7e {
			c.esc = escNone
		}
		if b != '\n' {
			return 0
		}
		c.esc = escNone // no sequence spans lines
	case escNone:
	}
	switch {
	case b == 0x1b:
		c.esc = escStart
		return 0
	case b == '\n' || b == '\r' || b == '\t' || b == '\b' || b >= ' ' && b < 0x7f:
		return b
	case b > 0x7f:
		return '?'
	}
	return 0
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
