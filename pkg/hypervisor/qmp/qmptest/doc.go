// Package qmptest is the other end of a machine protocol connection, for tests
// of what speaks it.
//
// A [Server] owns its end, which closes with the test. It does nothing by
// itself: each step of the test receives or sends, so it has no goroutine and no
// lock, and a step that does not happen in time fails the test. The goroutine of
// [Dial] ends before Dial returns.
//
// It must never know what commands do.
package qmptest
