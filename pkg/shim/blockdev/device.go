package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// device is a block device that a container is given.
type device struct {
	key
	path string // in the container
}

func (d device) String() string { return fmt.Sprintf("%s %d:%d", d.path, d.major, d.minor) }

// given are the block devices that a rule names which lets the container read or write,
// each once. A privileged container, which may use all there are, has nodes of all
// that the host had when its client listed them, and is given those alone that a rule names as
// well, or that are listed twice: by the host's path and by another one. A path of the host that
// has gone since, or has another device, is no such thing.
func given(spec *specs.Spec) []device {
	if spec.Linux == nil || spec.Linux.Resources == nil {
		return nil
	}
	var list []device
	seen := make(map[number]bool)
	for _, d := range spec.Linux.Devices {
		n := number{uint32(d.Major), uint32(d.Minor)}
		rules := spec.Linux.Resources.Devices
		read, write := access(d, rules)
		if !read && !write && slices.ContainsFunc(rules, allowsAll) && !isNode(d.Path, n) && listed(spec.Linux.Devices, n) {
			read, write = true, true
		}
		if d.Type != "b" || seen[n] || !read && !write {
			continue
		}
		seen[n] = true
		list = append(list, device{key: key{n, !write}, path: d.Path})
	}
	return list
}

// listed reports whether a device is listed by the path that it has on the host.
func listed(all []specs.LinuxDevice, n number) bool {
	return slices.ContainsFunc(all, func(d specs.LinuxDevice) bool {
		return d.Type == "b" && number{uint32(d.Major), uint32(d.Minor)} == n && isNode(d.Path, n)
	})
}

// allowsAll reports whether a rule is that of a privileged container.
func allowsAll(r specs.LinuxDeviceCgroup) bool {
	return r.Allow && (r.Type == "" || r.Type == "a") && r.Major == nil && r.Minor == nil && (r.Access == "" || strings.Contains(r.Access, "w"))
}

// access is what the rules that name a device, or all of its driver, let a container do.
// The last one counts.
func access(d specs.LinuxDevice, rules []specs.LinuxDeviceCgroup) (read, write bool) {
	for _, r := range rules {
		if r.Type != d.Type || r.Major == nil || *r.Major != d.Major || r.Minor != nil && *r.Minor != d.Minor {
			continue
		}
		if r.Access == "" || strings.Contains(r.Access, "r") {
			read = r.Allow
		}
		if r.Access == "" || strings.Contains(r.Access, "w") {
			write = r.Allow
		}
	}
	return read, write
}

// open opens a block device by its number, whatever its nodes are called. One that cannot
// be written is open for reading alone.
func open(k key) (file *os.File, readOnly bool, err error) {
	path, remove, err := node(k.number, "/dev")
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	file, err = os.Open(path)
	if err != nil {
		return nil, false, err
	}
	if readOnly = k.readOnly || isReadOnly(file); readOnly {
		return file, true, nil
	}
	err = file.Close()
	if err == nil {
		file, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	return file, false, err
}

// isReadOnly reports whether nobody can write to a block device; it can be opened for
// that all the same.
func isReadOnly(disk *os.File) bool {
	conn, err := disk.SyscallConn()
	if err != nil {
		return false
	}
	var set int
	errControl := conn.Control(func(fd uintptr) { set, err = unix.IoctlGetInt(int(fd), unix.BLKROGET) })
	return errControl == nil && err == nil && set != 0
}

// node returns the path of a node of a device: that of the host's kernel in dev, or, where
// that is not to be seen, one that is made in a file system of its own. remove is called when
// it has been opened.
func node(n number, dev string) (path string, remove func() error, err error) {
	uevent, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/uevent", n.major, n.minor))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil, fmt.Errorf("the host has no such disk: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return "", nil, err
	}
	for line := range strings.Lines(string(uevent)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok && isNode(filepath.Join(dev, name), n) {
			return filepath.Join(dev, name), func() error { return nil }, nil
		}
	}
	dir, err := privateDir()
	if err == nil {
		path = fmt.Sprintf("/proc/self/fd/%d/node", dir.Fd())
		if err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(n.major, n.minor))); err != nil {
			err = errors.Join(err, dir.Close())
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("make a node: %w", err)
	}
	return path, dir.Close, nil
}

// privateDir returns an empty directory that nobody else can see, which ends when it is
// closed. Where the host lets the shim write, such as /run, nodes may have no effect (nodev).
func privateDir() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("fsconfig: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(fd), "tmpfs"), nil
}

// isNode reports whether a file is a node of a block device.
func isNode(path string, n number) bool {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == unix.Mkdev(n.major, n.minor)
}
