package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
)

// uevents tells waiters that the kernel has announced some device. What
// exactly changed does not matter: every waiter checks its own condition anew.
type uevents struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each event; guarded by mu
	sock    *os.File
	nic     func() // called, in the way of nothing, when an interface is announced
}

// nicAlias is how the kernel announces a virtio interface, before it has a driver.
var nicAlias = []byte("MODALIAS=virtio:d00000001v")

// openUevents joins the kernel's broadcast group. Events that come after it
// returned are not lost.
func openUevents(nic func()) (*uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind uevent socket: %w", err)
	}
	return &uevents{changed: make(chan struct{}), sock: os.NewFile(uintptr(fd), "uevent"), nic: nic}, nil
}

// run announces events until the socket is closed.
func (u *uevents) run() {
	defer console.Guard()
	buf := make([]byte, 8<<10) // the kernel's own limit is 2 KiB plus a path
	for {
		// An overrun of the socket's buffer is an event as well.
		n, err := u.sock.Read(buf)
		if err != nil && !isOverrun(err) {
			return
		}
		if bytes.Contains(buf[:max(n, 0)], nicAlias) {
			go func() { defer console.Guard(); u.nic() }()
		}
		u.mu.Lock()
		close(u.changed)
		u.changed = make(chan struct{})
		u.mu.Unlock()
	}
}

// wait returns when check reports true or fails, or when ctx ends. check is
// called at once and after every event.
func (u *uevents) wait(ctx context.Context, check func() (bool, error)) error {
	for {
		u.mu.Lock()
		changed := u.changed
		u.mu.Unlock()
		ok, err := check()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
