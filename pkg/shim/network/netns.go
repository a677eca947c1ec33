package network

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// Namespace is an open network namespace. It is not safe for concurrent use.
type Namespace struct {
	file   *os.File
	handle *netlink.Handle
}

// hostNamespaces are the namespaces whose interfaces are never exposed to a VM.
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
	if err := refuseHost(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return open(file)
}

// New makes a network namespace without a name. It lives as long as a process,
// or a file, that has it.
func New() (*Namespace, error) {
	var file *os.File
	err := osthread.Run(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return open(file)
}

// open takes over file.
func open(file *os.File) (*Namespace, error) {
	n := &Namespace{file: file}
	err := n.do(func() (err error) {
		n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", file.Name(), err), file.Close())
	}
	return n, nil
}

// ErrHost is the refusal of the host's network namespace.
var ErrHost = fmt.Errorf("a VM cannot be in the host's network: give the pod a network of its own (hostNetwork: false), or run it with another runtime class: %w", errdefs.ErrFailedPrecondition)

func refuseHost(file *os.File) error {
	own, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	for _, host := range hostNamespaces {
		// One that cannot be looked at is that of another pid namespace's init,
		// so it is not where this process could break something.
		if info, err := os.Stat(host); err == nil && os.SameFile(own, info) {
			return fmt.Errorf("network namespace %s is the host's: %w", file.Name(), ErrHost)
		}
	}
	return nil
}

// Cookie is what the kernel calls the namespace: a number that no other one has had
// since the boot, as inodes do. It is 0 on kernels before 5.14.
func (n *Namespace) Cookie() (cookie uint64, err error) {
	err = n.do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("identify network namespace %s: %w", n.name(), err)
	}
	return cookie, nil
}

// File is the namespace for those who enter it. It stays the Namespace's.
func (n *Namespace) File() *os.File { return n.file }

// name is what errors call the namespace.
func (n *Namespace) name() string { return n.file.Name() }

// do calls fn on a thread in the namespace.
func (n *Namespace) do(fn func() error) error { return osthread.RunInNetNS(n.file, fn) }

// Close lets go of the namespace, and leaves everything in it as it is.
func (n *Namespace) Close() error {
	n.handle.Close()
	return n.file.Close()
}
