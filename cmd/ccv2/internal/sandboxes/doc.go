// Package sandboxes finds the sandboxes of a host and asks their shims.
//
// A sandbox is found through its record on disk (pkg/shim/store), and asked through the
// debug service of its shim (pkg/shim/debug/debugapi), always with a time limit: one that
// does not answer is told as such. What can be had from /proc is not asked for. Sandboxes that
// have ended have left a journal, of which the last ones are kept.
//
// The package has no state and starts no goroutine. It must never hold up a pod, and changes nothing.
package sandboxes
