package qemu

import (
	"strings"
	"sync"
)

// Limits of what is kept of the console. The guest writes it, so they bound
// what a hostile one can make the shim hold: 512 KiB.
const (
	consoleLines   = 1024
	consoleLineLen = 512
)

// console keeps the last lines of a stream, made printable. It is an
// io.Writer that never fails and never blocks.
type console struct {
	mu    sync.Mutex // guards what follows
	lines []string   // ring; next is the oldest once it is full
	next  int
	line  []byte // the line that is being written
	esc   escState
}

// escState is where the stream is in a terminal's escape sequence.
type escState int

const (
	escNone  escState = iota
	escStart          // after ESC
	escCSI            // after ESC [, up to the final byte
)

// Write implements io.Writer.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range p {
		c.put(b)
	}
	return len(p), nil
}

// put takes one byte. Escape sequences and control characters are left out and
// what is not ASCII becomes '?': the lines end up in logs and in error messages.
func (c *console) put(b byte) {
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
	case len(c.line) >= consoleLineLen:
	case b == '\t':
		c.line = append(c.line, ' ')
	case b < 0x20 || b == 0x7f:
	case b > 0x7f:
		c.line = append(c.line, '?')
	default:
		c.line = append(c.line, b)
	}
}

func (c *console) push() {
	line := strings.TrimRight(string(c.line), " ")
	c.line = c.line[:0]
	if len(c.lines) < consoleLines {
		c.lines = append(c.lines, line)
		return
	}
	c.lines[c.next] = line
	c.next = (c.next + 1) % consoleLines
}

// tail returns up to n last lines, oldest first, with an unfinished one.
func (c *console) tail(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]string, 0, len(c.lines)+1)
	all = append(all, c.lines[c.next:]...)
	all = append(all, c.lines[:c.next]...)
	if len(c.line) > 0 {
		all = append(all, string(c.line))
	}
	return all[max(0, len(all)-max(n, 0)):]
}
