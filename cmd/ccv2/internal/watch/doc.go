// Package watch is what an operator follows of sandboxes as it goes on: the console and the events, what passes between the
// shim and the guest, and the metrics and spans of all sandboxes of a host.
//
// A command asks a shim once whether it answers before it follows it, and ends with its context or the sandbox. The package has
// no state. What a guest has written passes pkg/printable before it is printed. It must never hold up a pod.
package watch
