package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// guestMounts are the mounts that the guest sees. They are made in the mount
// namespace of the server of the share, whose root is the guest's view, and not
// in the host's: the host can remove a directory on which it had mounted
// something, and lists in its table what it has mounted itself.
//
// A share that QEMU serves is never opened: QEMU lives in the host's namespace,
// and so do the mounts.
type guestMounts struct {
	files  string // the share on the host
	shared string // the same as a server in the host's namespace serves it

	mu   sync.Mutex  // guards the fields below; held while the namespace is used
	ns   *os.File    // nil when there is none, or no longer
	dir  *os.File    // the server's root directory
	proc *os.File    // the host's /proc, which the namespace does not have
	root os.FileInfo // of the server; nil when there is none and never was
}

// errNoMounts says that the namespace has ended, and all mounts with it.
var errNoMounts = fmt.Errorf("the share's server has ended: %w", errdefs.ErrUnavailable)

// open opens the namespace of a server of a directory. The server has confined
// itself when the guest has mounted the share.
func (m *guestMounts) open(pid int, dir string) error {
	root, err := os.Stat(dir)
	if err != nil {
		return err
	}
	server := filepath.Join("/proc", strconv.Itoa(pid))
	ns, err := os.Open(filepath.Join(server, "ns/mnt"))
	if err != nil {
		return err
	}
	own, err := os.OpenFile(filepath.Join(server, "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return errors.Join(err, ns.Close(), own.Close())
	}
	m.mu.Lock()
	m.ns, m.dir, m.proc, m.root = ns, own, proc, root
	m.mu.Unlock()
	_, err = m.enter(func() error { return nil })
	return err
}

// close closes the namespace, which ends with the server, and its mounts too.
func (m *guestMounts) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ns == nil {
		return nil
	}
	err := errors.Join(m.ns.Close(), m.dir.Close(), m.proc.Close())
	m.ns, m.dir, m.proc = nil, nil, nil
	return err
}

// enter calls f on a thread in the namespace and reports whether mounts belong
// there.
func (m *guestMounts) enter(f func() error) (belong bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.root == nil:
		return false, nil
	case m.ns == nil:
		return true, errNoMounts
	}
	return true, osthread.Run(func() error {
		if err := m.join(); err != nil {
			return err
		}
		return f()
	})
}

// join moves the calling thread into the namespace, with the share as its root:
// the paths that follow mean other things elsewhere. The root of the namespace is
// another one where this process, and so the server, was started in a chroot.
func (m *guestMounts) join() error {
	// A thread has a root of its own before it can have mounts of its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter the mounts of the share's server: %w", err)
	}
	if err := unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mounts of the share's server: %w", err)
	}
	if err := unix.Fchdir(int(m.dir.Fd())); err != nil {
		return fmt.Errorf("enter the root of the share's server: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the root of the share's server: %w", err)
	}
	root, err := os.Stat("/")
	if err != nil {
		return fmt.Errorf("enter the mounts of the share's server: %w", err)
	}
	if !os.SameFile(root, m.root) {
		return errors.New("the share's server (virtiofsd) has not made the share its root directory, which another version of it may do: " +
			"use one that `ccv2 check` accepts, or set share.type = \"9p\"")
	}
	return nil
}

// host is where the host has a path of the share.
func (m *guestMounts) host(path string) string { return filepath.Join(m.files, path) }

// attach puts a tree of mounts in place, at a path of the share.
func (m *guestMounts) attach(tree int, path string) error {
	move := func(target string) error {
		return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	belong, err := m.enter(func() error { return move(filepath.Join("/", path)) })
	if belong {
		return err
	}
	return move(m.host(path))
}

// copyOf copies what is mounted at and below a path of the share. The path may lead
// over directories that the guest can change, but over no link.
func (m *guestMounts) copyOf(path string) (tree int, err error) {
	clone := func(root string) error {
		dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(dir) }()
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		tree, err = cloneMounts(fd, "", true)
		return err
	}
	belong, err := m.enter(func() error { return clone("/") })
	if !belong && err == nil {
		err = clone(m.files)
	}
	return tree, err
}

// isolate makes a directory of the share a mount of its own, which the guest
// sees as a file system of its own. QEMU tells file systems apart by itself.
func (m *guestMounts) isolate(path string) error {
	path = filepath.Join("/", path)
	_, err := m.enter(func() error {
		dir, err := cloneMounts(unix.AT_FDCWD, path, false)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(dir) }()
		if err := protect(dir, WriteNothing, false); err != nil {
			return err
		}
		return unix.MoveMount(dir, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	return err
}

// setReadOnly changes whether the mount at a path of the share can be written.
func (m *guestMounts) setReadOnly(path string, readOnly bool) error {
	attr := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if readOnly {
		attr = &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	set := func(dir string) error {
		return unix.MountSetattr(unix.AT_FDCWD, filepath.Join(dir, path), unix.AT_SYMLINK_NOFOLLOW, attr)
	}
	belong, err := m.enter(func() error { return set("/") })
	if belong {
		return err
	}
	return errors.Join(set(m.files), set(m.shared))
}

// detach unmounts everything at and below a path of the share.
func (m *guestMounts) detach(path string) error {
	belong, err := m.enter(func() error {
		return mounts.UnmountListed(filepath.Join("/", path), m.list)
	})
	if errors.Is(err, errNoMounts) {
		return nil
	}
	if belong {
		return err
	}
	return mounts.Unmount(m.host(path))
}

// list is [mountinfo.GetMounts] for the thread that calls it, in a namespace
// without /proc.
func (m *guestMounts) list(f mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	fd, err := unix.Openat(int(m.proc.Fd()), "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	table := os.NewFile(uintptr(fd), "mountinfo")
	defer func() { _ = table.Close() }()
	return mountinfo.GetMountsFromReader(table, f)
}
