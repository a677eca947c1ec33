// Package placeholder makes pids for containers whose processes are in a guest.
//
// A [Placeholder] is a thread of the shim that does nothing, in the pod's network
// namespace: its id is one that no other container has, by which the CRI names
// the container whose pid namespace another one shall join, and /proc has the
// namespace under it for those who look for the network of a container there.
// Each is one goroutine, locked to its thread, until Release. The package knows
// nothing of the container that it represents.
package placeholder
