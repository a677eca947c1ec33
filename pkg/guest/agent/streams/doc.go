// Package streams carries the standard streams of all processes between their
// pipes or terminals and the tty port.
//
// It owns the tty port with its sequence numbers, and for each process the pipes
// or the terminal, the queue of its input, the credit of its outputs and the
// goroutines that copy. No stream waits for another one: input is queued up to
// the credit window, and an output without credit stops alone.
//
// The streams of a process, an [IO], are
//
//	opened ──Abort──→ closed            the process was not started
//	   └──Start──→ copying ──Close──→ closed
//
// and [IO.SendExit] comes last, when the sequence numbers are free already.
//
// Goroutines: [Port.Serve] is its caller's. Start makes one for the input and
// one for each output, and one that closes [IO.Drained] after the outputs; Close
// joins them all.
//
// Locks: Port.mu (the tables), Port.wmu (writes), stdin.mu and credit.mu (one
// stream each). All are leaves; only wmu is held across a write, because it is
// what keeps messages whole.
//
// The package must never know what a container is, how a process is started or
// why it ends.
package streams
