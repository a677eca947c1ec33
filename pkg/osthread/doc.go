// Package osthread runs functions on operating system threads of their own, for
// what Linux keeps per thread: the network namespace, the mount namespace, and
// the signal that a child gets when the thread that started it ends.
//
// A thread ends together with its function: nothing that the function does to it
// outlives it. It is never the process's first thread, whose namespaces are what
// /proc shows of the process. The package keeps no state; it must never know what
// the functions do.
//
// The thread may have run other goroutines before. A process that one of them
// started with a parent-death signal gets that signal when the function returns,
// so such processes are to be started, and waited for, in a function of this
// package.
package osthread
