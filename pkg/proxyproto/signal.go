package proxyproto

import (
	"fmt"
	"syscall"
)

const (
	// MaxSignal is the largest signal number that a frame can carry. The
	// original has neither SIGUNUSED of Linux, which is the next one, nor the
	// real-time signals.
	MaxSignal = 30
	// maxTerminalSide is the largest number of rows or columns; the kernel
	// keeps them in 16 bits.
	maxTerminalSide = 1<<16 - 1
)

// Signal is the payload of CmdSignal. With SIGWINCH it carries the size of the
// terminal, in characters.
type Signal struct {
	SignalNumber int `json:"signalNumber"`
	Columns      int `json:"columns,omitempty"`
	Rows         int `json:"rows,omitempty"`
}

// Validate applies the rules of the original proxy, with its wording: a number
// from 0 to 30, a size with SIGWINCH, no size with any other signal.
func (s Signal) Validate() error {
	number := syscall.Signal(s.SignalNumber)
	switch {
	case s.SignalNumber < 0 || s.SignalNumber > MaxSignal:
		return fmt.Errorf("invalid signal number %d", s.SignalNumber)
	case number == syscall.SIGWINCH:
		if !validSide(s.Columns) || !validSide(s.Rows) {
			return fmt.Errorf("received SIGWINCH but terminal size is invalid (%d,%d)", s.Columns, s.Rows)
		}
	case s.Columns != 0 || s.Rows != 0:
		return fmt.Errorf("received a terminal size (%d,%d) for signal %s", s.Columns, s.Rows, number)
	}
	return nil
}

func validSide(n int) bool { return n > 0 && n <= maxTerminalSide }
