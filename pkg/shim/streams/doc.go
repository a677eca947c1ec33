// Package streams moves the standard streams of a process between its two ends:
// what containerd named (pkg/shim/stdio), and the session with the guest
// (pkg/guest/client).
//
// A [Streams] owns both ends from Open to Close. Copy runs a goroutine of the
// caller's beside the two copies of output, and Feed one for the input. They end
// with the session, with the ends, or with Close. Output is drained before an exit
// is reported, as long as that makes progress. The package knows no states of
// processes and no exits.
package streams
