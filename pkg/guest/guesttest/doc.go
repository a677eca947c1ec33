// Package guesttest is a guest in memory for tests: a [client.Guest] without a
// VM, without a protocol and without root. Its containers behave as those of a
// ccv2 guest; what a process does is up to the test, or to its arguments:
//
//	exit N     exits with N before the call that starts it returns
//	say TEXT   writes TEXT to stdout and exits with 0
//	missing    cannot be started: no such file, exit status 127
//	deaf       runs, and ignores signals
//
// A process with other arguments runs until the test ends it ([Process.Exit]),
// or a signal does, with 128 and the signal's number.
//
// Calls can be made to fail ([Guest.Fail]) or to hang ([Guest.Hang]), and are
// listed by [Guest.Calls].
//
// A [Wire] is one at the other end of a VM's ports, for what is between: it answers every command
// and carries out none.
//
// The guest has no goroutines. Guest.mu guards all of it but for streams, which
// have a lock of their own, which comes after it. Callbacks run without locks.
package guesttest
