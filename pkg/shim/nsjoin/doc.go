// Package nsjoin finds the namespaces in the guest that a container joins: a
// specification names them by paths of the host, that is, by another container's pid. What
// cannot be joined in a VM is refused.
//
// It has no state and no goroutines, asks the guest alone (and the host's /proc whether a
// process has ended), and must not know sandboxes and their states.
package nsjoin
