// Package hostproc identifies processes on the host so that one can be killed or
// awaited long after its pid was written down, by another process, and after
// the pid may have a new owner.
//
// It holds no state and starts no goroutine. It knows nothing of sandboxes.
package hostproc
