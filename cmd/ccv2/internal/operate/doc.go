// Package operate is what an operator does with the sandboxes of a host: list them, look at
// one, run a program in its VM, end it, and clean up what dead shims left. What goes on is in package watch.
//
// A sandbox is found through its record on disk (pkg/shim/store), and asked through the
// debug service of its shim (pkg/shim/debug/debugapi), always with a time limit: one that
// does not answer is shown as such. What can be had from /proc is not asked for. What a
// guest has written passes pkg/printable before it is printed.
//
// The package has no state. Sandboxes are asked side by side, in goroutines that the
// command joins. It must never hold up a pod, and ends or removes nothing that it was not
// told to.
package operate
