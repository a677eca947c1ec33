// Package condwait waits for a condition variable with a context.
//
// It owns nothing and has no state. The lock is the caller's, and is taken once
// more, in a goroutine of package context, when the context ends. It must never
// know what the condition is about.
package condwait
