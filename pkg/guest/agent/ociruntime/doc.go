// Package ociruntime starts processes in the guest and waits for all of them.
//
// It owns the OCI runtime, crun, with its sealed copy and its state
// directory, and [Reaper], the only caller of wait in PID 1. A method of [Runtime]
// is one invocation of the OCI runtime at most: they are what container operations
// cost most. What start and delete would do to that directory is done here.
//
// A [Child] is a process that the Reaper waits for:
//
//	started ──→ ended, its status kept ──Wait──→ reaped
//
// It can end before the OCI runtime has reported its pid. Therefore the starter of a
// process has an exitWatch open meanwhile.
//
// Goroutines: [Reaper.Run] is its caller's. Locks: Reaper.mu is a leaf; it is held
// from wait to delivery, so that no signal reaches a pid that was used again.
//
// The package must never know the host's messages, what state a container is in,
// or where output goes.
package ociruntime
