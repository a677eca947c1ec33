// Package calls counts the calls of the task service: how many, how long they took, and how those
// that failed did.
//
// A [Counts] has one lock, which guards its numbers and is a leaf. It has an entry for each
// operation that was called, of which a service has a fixed number, and starts no goroutine. It must never know
// what a call is about.
package calls
