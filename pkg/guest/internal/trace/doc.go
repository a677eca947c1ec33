// Package trace reads the recordings of the original programs for tests.
//
// A recording has one message or frame per line: direction, channel, seconds,
// hex. Lines that start with "#" are comments. The package has no state, no
// goroutine and no lock, and must never know what a recording is compared with.
package trace
