// Package commands reads the host's commands from the control port, has handlers carry them out,
// and answers.
//
// A command that comes as it is holds up those behind it until it is answered; one that comes in
// a CALL is acknowledged at once, runs beside others and is answered with its ticket.
//
// A [Mux] owns the reading side of the port, a [Writer] the writing side, which others write events
// to as well.
//
// Goroutines: [Mux.Serve] is its caller's; one per CALL, which Serve joins. Locks: Writer.mu is
// held across a write, because it is what keeps messages whole.
//
// It must not know what a command does.
package commands
