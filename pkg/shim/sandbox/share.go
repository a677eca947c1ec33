package sandbox

import (
	"fmt"
	"os"
	"path/filepath"

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
func (sh *share) bind(source string, access writable) (string, error) {
	// The path is opened once and used through its descriptor, so that what is
	// looked at is what is mounted.
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	name := filepath.Join(sh.name, "mounts", fmt.Sprint(sh.count))
	target := filepath.Join(sh.host, "mounts", fmt.Sprint(sh.count))
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	sh.count++
	from := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := unix.Mount(from, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	// Later mounts of the host below source reach the guest, nothing goes back.
	if err := unix.Mount("", target, "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	if err := unix.Mount("", target, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	if err := protect(target, access); err != nil {
		return "", fmt.Errorf("share %s read-only: %w", source, err)
	}
	return name, nil
}

// protect makes a mount read-only on the host's side: the guest's kernel is
// told too, but is not trusted to obey.
func protect(target string, access writable) error {
	var flags uint
	switch access {
	case writeAll:
		return nil
	case writeBelow:
	case writeNothing:
		flags = unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, target, flags, &attr)
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
