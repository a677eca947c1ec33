//go:build e2e

package harness

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"golang.org/x/sys/unix"
)

// newNetNS makes a network namespace that lives as long as the file, and
// therefore longer than a daemon in it: what is plugged into its bridge must
// not go with a daemon that is killed.
func newNetNS() (ns *os.File, err error) {
	err = osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := loopback(); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
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

// startIn starts a command in a network namespace and waits for it, on a thread
// that is there for nothing else: commands can be made to die with the thread
// that started them. ended is closed when the command was reaped.
func startIn(ns *os.File, cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	started, done := make(chan error, 1), make(chan struct{})
	err = osthread.GoInNetNS(ns, func() {
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ends is no news
		}
	})
	if err == nil {
		err = <-started
	}
	return done, err
}
