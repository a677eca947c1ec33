// Package printable makes text that a guest has written fit for the terminal of a
// client and for a log: one line, without what a terminal would obey, and bounded.
//
// It owns nothing, and has no state and no goroutines. It must never know what the
// text is about.
package printable
