package placeholder

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/beneath"
)

// Container is what its processes on the host have.
type Container struct {
	// Root is a copy of the mounts of its root file system, which is mounted nowhere.
	// nil is an empty root directory.
	Root *os.File
	// Mounts are made in their order; those that find no mount point are left out.
	Mounts   []Mount
	Hostname string // "" for the host's
	// Room is how many more threads there may be on the host for the sandbox; nil when
	// nothing bounds them.
	Room func() (int, error)
	// Place is called with each process's pid before anybody else knows it; nil when it
	// is where the shim is.
	Place func(pid int) error
	// NewNetwork gives it a network namespace of its own, which is nobody else's.
	NewNetwork bool
}

// Mount is what is mounted in a container.
type Mount struct {
	Destination string
	// Tree is a copy of mounts that is mounted nowhere. nil is what only the guest
	// has: an empty directory that is read-only.
	Tree *os.File
}

// Close closes all files.
func (c *Container) Close() {
	if c.Root != nil {
		_ = c.Root.Close()
	}
	for _, m := range c.Mounts {
		if m.Tree != nil {
			_ = m.Tree.Close()
		}
	}
}

// separate gives the calling thread namespaces of its own, with the container's root
// file system as the root directory. The thread cannot return to the host's by path.
func separate(c Container) error {
	// A thread has a root directory of its own before it can have mounts of its own.
	flags := unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	if c.NewNetwork {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := leaveChroot(); err != nil {
		return err
	}
	// What the host unmounts from here on must not stay because of this copy.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach from the host's mounts: %w", err)
	}
	root, err := rootOf(c)
	if err != nil {
		return fmt.Errorf("make a root directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	if err := mountRoot(root); err != nil {
		return fmt.Errorf("mount the root directory: %w", err)
	}
	for _, m := range c.Mounts {
		if err := mountBelow(root, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	if err := changeRoot(root); err != nil {
		return fmt.Errorf("change the root directory: %w", err)
	}
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return fmt.Errorf("set the host name %q: %w", c.Hostname, err)
		}
	}
	return dropCapabilities()
}

// leaveChroot makes the root of the mount namespace the root directory, which it is
// not where containerd runs in a chroot.
func leaveChroot() error {
	own, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	defer func() { _ = own.Close() }()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mount namespace: %w", err)
	}
	return nil
}

// rootOf is the container's root file system.
func rootOf(c Container) (*os.File, error) {
	if c.Root != nil {
		fd, err := unix.FcntlInt(c.Root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "root"), nil
	}
	return emptyMount()
}

// emptyMount is an empty file system that nobody can write to. It is a new one each
// time: older kernels do not copy a mount that is mounted nowhere.
func emptyMount() (*os.File, error) {
	fs, err := mountTmpfs()
	if err != nil {
		return nil, err
	}
	if err := makeReadOnly(fs); err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	return fs, nil
}

// makeReadOnly makes a mount read-only.
func makeReadOnly(fs *os.File) error {
	return unix.MountSetattr(int(fs.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// mountRoot attaches the root file system, at a directory that all hosts have.
func mountRoot(root *os.File) error {
	return unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// mountBelow makes a mount of the container. The container may have changed the path,
// which is resolved with its root file system as the root directory.
func mountBelow(root *os.File, m Mount) error {
	at, err := beneath.Open(int(root.Fd()), m.Destination, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // the guest has made its mount point elsewhere, and so nothing here can be mistaken for it
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(at) }()
	tree := m.Tree
	if tree == nil {
		if tree, err = emptyMount(); err != nil {
			return err
		}
		defer func() { _ = tree.Close() }()
	}
	if same, err := sameKind(int(tree.Fd()), at); err != nil || !same {
		return err // a file and a directory: as above
	}
	return unix.MoveMount(int(tree.Fd()), "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// sameKind reports whether both are directories, or both are not.
func sameKind(a, b int) (bool, error) {
	var first, second unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &first), unix.Fstat(b, &second)); err != nil {
		return false, err
	}
	return (first.Mode&unix.S_IFMT == unix.S_IFDIR) == (second.Mode&unix.S_IFMT == unix.S_IFDIR), nil
}

// changeRoot makes a mount the root of the mount namespace and detaches all others.
func changeRoot(root *os.File) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(old) }()
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return err
	}
	err = unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) { // the host lives in its initramfs, which nothing can take the place of
		if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
			return err
		}
		return unix.Chroot(".")
	}
	if err != nil {
		return err
	}
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

// dropCapabilities leaves none to the programs that the calling thread starts, and no
// way to get some.
func dropCapabilities() error {
	none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&none, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range data { // the others are needed to start a program as another user
		data[i].Inheritable = 0
	}
	if err := unix.Capset(&none, &data[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep programs from getting privileges: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // that was the last one
		}
		if err != nil {
			return fmt.Errorf("drop capabilities: %w", err)
		}
	}
}
