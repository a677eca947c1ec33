package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace. It is not safe for concurrent use.
type Namespace struct {
	path   string
	file   *os.File
	handle *netlink.Handle
}

// hostNamespaces are the namespaces whose interfaces are never shown to a VM.
var hostNamespaces = []string{"/proc/1/ns/net", "/proc/self/ns/net"}

// Open opens the network namespace at path. One that does not exist is
// errdefs.ErrNotFound. The host's own is refused: taking its interfaces would
// cut the host off.
func Open(path string) (*Namespace, error) {
	file, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open network namespace: %w: %w", err, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	n := &Namespace{path: path, file: file}
	if err := n.refuseHost(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	err = n.do(func() (err error) {
		n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", path, err), file.Close())
	}
	return n, nil
}

// ErrHost is the refusal of the host's network namespace.
var ErrHost = fmt.Errorf("a VM cannot be in the host's network: give the pod a network of its own (hostNetwork: false), or run it with another runtime class: %w", errdefs.ErrFailedPrecondition)

func (n *Namespace) refuseHost() error {
	own, err := n.file.Stat()
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	for _, host := range hostNamespaces {
		// One that cannot be looked at is that of another pid namespace's init,
		// so it is not where this process could break something.
		if info, err := os.Stat(host); err == nil && os.SameFile(own, info) {
			return fmt.Errorf("network namespace %s is the host's: %w", n.path, ErrHost)
		}
	}
	return nil
}

// do calls fn on a thread in the namespace.
func (n *Namespace) do(fn func() error) error {
	result := make(chan error, 1)
	go func() { result <- n.enter(fn) }()
	return <-result
}

// enter runs on a goroutine of its own: a thread that does not find back stays
// locked, and ends together with the goroutine.
func (n *Namespace) enter(fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", n.path, err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave network namespace %s: %w", n.path, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Close lets go of the namespace, and leaves everything in it as it is.
func (n *Namespace) Close() error {
	n.handle.Close()
	return n.file.Close()
}
