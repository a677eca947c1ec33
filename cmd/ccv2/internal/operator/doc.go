// Package operator is what the commands about sandboxes have in common: flags, the sandbox that an argument names, tables and
// times for people.
//
// It has no state but what the flags say, no goroutine and no lock, and must never ask a shim.
package operator
