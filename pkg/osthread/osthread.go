package osthread

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Run calls fn on a thread of its own and waits for it.
func Run(fn func() error) error { return RunInNetNS(nil, fn) }

// RunInNetNS is [Run] in the network namespace netns, or in the present one when
// that is nil. netns stays the caller's. On error of the namespace fn is not
// called.
func RunInNetNS(netns *os.File, fn func() error) error {
	result := make(chan error, 1)
	if err := GoInNetNS(netns, func() { result <- fn() }); err != nil {
		return err
	}
	return <-result
}

// GoInNetNS calls fn on a thread of its own in the network namespace netns, or in
// the present one when that is nil, and returns as soon as fn runs. netns stays
// the caller's. On error fn is not called.
func GoInNetNS(netns *os.File, fn func()) error {
	entered := make(chan error)
	go run(netns, fn, entered)
	return <-entered
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
