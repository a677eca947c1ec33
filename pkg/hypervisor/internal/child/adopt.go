package child

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// Adopt returns a process that another one has started, with Options.Outlives. Its end is
// noticed as that of a child; how it ends is known to its parent alone.
func Adopt(who hostproc.Process) (*Process, error) {
	fd, err := unix.PidfdOpen(who.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("adopt %s (pid %d): %w", who.Name, who.PID, err)
	}
	p := &Process{pid: who.PID, started: time.Now(), done: make(chan struct{}), adopted: os.NewFile(uintptr(fd), "pidfd")}
	if !who.Alive() { // with the pidfd open the pid cannot change hands any more
		return nil, errors.Join(fmt.Errorf("adopt %s (pid %d): it has ended: %w", who.Name, who.PID, unix.ESRCH), p.adopted.Close())
	}
	go func() {
		defer close(p.done)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.exit, p.reaped = hypervisor.Exit{Unknown: true}, true
		_ = p.adopted.Close()
	}()
	return p, nil
}

// signalAdopted kills a process that is no child. The caller has p.mu.
func signalAdopted(p *Process) error {
	err := unix.PidfdSendSignal(int(p.adopted.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}
