// Package thread runs functions on operating system threads of their own, for
// what Linux keeps per thread: the network namespace, and the signal that a
// child gets when the thread that started it ends.
package thread

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Start calls fn on a new thread in the network namespace netns, or in the
// present one when that is nil, and returns as soon as fn runs. The thread ends
// together with fn: nothing that fn does to it outlives it. It is never the
// process's first thread, whose namespaces are what /proc shows of the process.
//
// netns stays the caller's. On error fn is not called.
//
// The thread may have run other goroutines before. A process that one of them
// started with a parent-death signal gets that signal when fn returns, so such
// processes are to be started, and waited for, in a function of this package.
func Start(netns *os.File, fn func()) error {
	entered := make(chan error)
	go run(netns, fn, entered)
	return <-entered
}

// Do calls fn in the same way and waits for it.
func Do(netns *os.File, fn func() error) error {
	result := make(chan error, 1)
	if err := Start(netns, func() { result <- fn() }); err != nil {
		return err
	}
	return <-result
}

// run is a goroutine of its own. It is never unlocked from its thread, which
// is why the thread ends with it.
func run(netns *os.File, fn func(), entered chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// While this goroutine holds the first thread, another one cannot get it.
		again := make(chan error)
		go run(netns, fn, again)
		entered <- <-again
		runtime.UnlockOSThread()
		return
	}
	if netns != nil {
		if err := enter(netns); err != nil {
			entered <- err
			return
		}
	}
	entered <- nil
	fn()
}

func enter(netns *os.File) error {
	raw, err := netns.SyscallConn() // Fd would make the file blocking
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", netns.Name(), err)
	}
	var setns error
	if err := raw.Control(func(fd uintptr) { setns = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", netns.Name(), err)
	}
	if setns != nil {
		return fmt.Errorf("enter network namespace %s: %w", netns.Name(), setns)
	}
	return nil
}
