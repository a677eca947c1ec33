package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// shareDir makes the shared directory a mount of its own with shared
// propagation: virtiofsd lives in a mount namespace of its own and sees later
// mounts only in this way, whatever the host's root says.
func (s *Sandbox) shareDir() error {
	dir := s.dir.Shared()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount shared directory: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share shared directory: %w", err)
	}
	return nil
}

// share is the part of the shared directory that belongs to one container.
//
//	<container>/rootfs      the root file system
//	<container>/mounts/<n>  one bind mount each
type share struct {
	host  string // path on the host
	name  string // path below the shared directory
	count int    // bind mounts so far
}

func (s *Sandbox) newShare(container string) (*share, error) {
	sh := &share{name: container, host: filepath.Join(s.dir.Shared(), container)}
	for _, dir := range []string{sh.host, filepath.Join(sh.host, "rootfs"), filepath.Join(sh.host, "mounts")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("share container: %w", err)
		}
	}
	return sh, nil
}

// rootfs is the directory on the host on which the root file system belongs.
func (sh *share) rootfs() string { return filepath.Join(sh.host, "rootfs") }

// writable says what may be written below a bind mount.
type writable uint8

const (
	writeAll     writable = iota // everything that the host allows
	writeBelow                   // not the mount itself, only other mounts below it (ro)
	writeNothing                 // nothing (rro)
)

// bind shows source, a file or a directory of the host, to the guest and
// returns its path below the shared directory. A file is shown alone, without
// its directory.
//
// The mount is made, protected and only then put in place: virtiofsd gets a
// copy of it at that moment, and does not see what is changed afterwards.
func (sh *share) bind(source string, access writable) (string, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := protect(tree, access); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	number := strconv.Itoa(sh.count)
	target := filepath.Join(sh.host, "mounts", number)
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	sh.count++
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	return filepath.Join(sh.name, "mounts", number), nil
}

// protect sets what a detached mount lets through: later mounts of the host
// below it, never one back to the host, and writes as access says. The guest's
// kernel is told of that too, but is not trusted to obey.
func protect(tree int, access writable) error {
	const all = unix.AT_EMPTY_PATH | unix.AT_RECURSIVE
	if err := unix.MountSetattr(tree, "", all, &unix.MountAttr{Propagation: unix.MS_SLAVE}); err != nil {
		return fmt.Errorf("detach from the host: %w", err)
	}
	var flags uint
	switch access {
	case writeAll:
		return nil
	case writeBelow:
		flags = unix.AT_EMPTY_PATH
	case writeNothing:
		flags = all
	}
	if err := unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	return nil
}

func makeTarget(path string, dir bool) error {
	if dir {
		return os.Mkdir(path, 0o755)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// close takes the container's part back. It is idempotent.
func (sh *share) close() error {
	if err := store.Unmount(sh.host); err != nil {
		return err // what is mounted must not be deleted
	}
	return store.RemoveTree(sh.host)
}
