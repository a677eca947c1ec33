// Package wiretest has a guest for tests that speaks the hyperstart protocol as
// the test says, on the wire: it may break the protocol, too. A guest that keeps
// containers, for tests of what is above the wire, is pkg/guest/guesttest.
//
// A [Guest] owns its ends of the two ports. It has not started ([New]), runs
// ([Guest.Run]), or has ended, when the host has hung up.
//
// Goroutines: one reader per port, and one per CALL; [Guest.Close] joins them.
// Locks: Guest.Mu is held while a control message is written, which keeps the
// order of messages; it is the only one.
//
// It must never know what is tested with it.
package wiretest
