// Package debug is the debug service of a shim, a sibling of the task service over the
// same sandbox: it tells an operator what goes on, and does what one asks for.
//
// A [Service] listens on a socket of its own in the directory of the sandbox, for root
// alone, from the moment that the directory exists until everything was released. It
// answers also when the VMM, the file server or the guest's agent stands still: what it
// tells comes from the memory of the shim; what has to be asked for has a time limit, after
// which the answer says so.
//
// It asks the VMM and the guest for a sign of life now and then ([Heartbeat]); that one does
// not answer is an event, and that it does again.
//
// It owns the [History] of events, which is bounded, and nothing of what it looks at.
// Goroutines: one accepts connections, one has the heartbeat; ttrpc has some per connection, of which there are a
// bounded number, and one per request. A client that does not read is disconnected. The
// end of the service joins those two; requests end with their connections. No
// lock is held while something is awaited.
//
// It must never hold up the sandbox, and decides nothing about it.
package debug
