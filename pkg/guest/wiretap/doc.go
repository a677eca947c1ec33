// Package wiretap counts what passes between a host and its guest, and lets others look at it.
//
// A [Tap] stands at the two ports of a guest and at the connections of the proxy. It has a
// counter of messages and one of bytes for each kind of message in each direction, of which
// there is a fixed number. A [Watch] gets copies, in a queue with a bound: whoever passes a message never waits for
// one, and a watch that is slow loses messages and learns how many. While nobody watches a message costs two atomic additions. A
// nil Tap does nothing.
//
// It starts no goroutine. Tap.mu guards the list of watches, Watch.mu a queue; Watch.mu is a leaf.
// It must never know what the messages mean, beyond their kind.
package wiretap
