// Package child runs helper processes that do not outlive this one, unless they are told to.
//
// A [Process] runs from [Start] on, and ends by itself, by [Process.Kill] or with
// the thread that started it; then it is reaped with its process group, and Done
// is closed. A pid is not reused before that.
//
// Each process has a goroutine that keeps the last of its standard error, and one,
// locked to a thread of its own, which starts it, waits for it and ends with it: the kernel's parent-death signal is about the
// thread, not the process. Process.mu is held for a kill and for the reaping, so
// that a kill never meets a new owner of the pid.
//
// A process that was started to outlive its parent is taken over by another one with [Adopt],
// which watches its pidfd.
//
// The package must not know what the programs are.
package child
