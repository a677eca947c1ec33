// Package nsjoin finds the namespaces in the guest that a container joins: a
// specification names them by paths of the host, that is, by another container's pid.
//
// It has no state and no goroutines, asks the guest alone, and must not know sandboxes
// and their states.
package nsjoin
