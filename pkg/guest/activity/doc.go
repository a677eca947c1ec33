// Package activity has the id of what a client has asked for, in a context: by it the entries of all logs
// about the same request are found, from the client's trace to the guest's agent.
//
// The package has no state, no goroutine and no lock, and must never know what a request is about.
package activity
