// Package history keeps the last entries of a sequence, with a bound, for readers
// that ask for what was or follow what comes.
//
// A [Log] has one lock, which guards its ring and is never held across a wait. It
// starts no goroutine: a reader waits in its own. Nobody who adds waits for a reader:
// one that is slow loses entries and learns how many.
//
// It must never know what the entries are.
package history
