//go:build e2e

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// newNetNS makes a network namespace that lives as long as the file, and
// therefore longer than a daemon in it: what is plugged into its bridge must
// not go with a daemon that is killed.
func newNetNS() (ns *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := loopback(); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		ns, err = os.Open(threadNetNS)
		return err
	})
	return ns, err
}

// loopback sets the loopback up, where daemons listen for streams.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// startIn starts a command in a network namespace.
func startIn(ns *os.File, cmd *exec.Cmd) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return cmd.Start()
	})
}

const threadNetNS = "/proc/thread-self/ns/net"

// onThread runs work on a thread that may change its network namespace. The
// thread lives on, because commands can be told to die with the thread that
// started them.
func onThread(work func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(threadNetNS)
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	err = work()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // and the thread is not used again
	}
	runtime.UnlockOSThread()
	return err
}
