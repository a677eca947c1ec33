package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// shareDir makes the two directories of the share, which are mounts of the same
// directory: the shim makes a container's directories and mounts in the first,
// and they appear in the second, which the guest gets.
//
// Shared propagation takes mounts from one to the other, and to virtiofsd, which
// lives in a mount namespace of its own, whatever the host's root says. The
// guest's side cannot be written to above those mounts: a guest that could
// rename a directory there, or put a link in its place, would choose where on
// the host the next container's mounts go.
func (s *Sandbox) shareDir() error {
	files, shared := s.dir.Files(), s.dir.Shared()
	if err := unix.Mount(files, files, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount shared directory: %w", err)
	}
	if err := unix.Mount("", files, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share shared directory: %w", err)
	}
	view, err := cloneMounts(files, false)
	if err != nil {
		return fmt.Errorf("mount the guest's view: %w", err)
	}
	defer func() { _ = unix.Close(view) }()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | harmless}
	if err := unix.MountSetattr(view, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("make the guest's view read-only: %w", err)
	}
	if err := unix.MoveMount(view, "", unix.AT_FDCWD, shared, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the guest's view: %w", err)
	}
	return nil
}

// harmless are the attributes of all mounts that the guest can write to: a
// device or a set-user-id program that it makes is none for the host, neither
// for a host's user nor for a server of the share that can be made to open it.
// The guest's own kernel takes no notice.
const harmless = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID

// cloneMounts returns a copy of what is mounted at path, which is mounted
// nowhere yet; a deep one has all mounts below it.
func cloneMounts(path string, deep bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if deep {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, path, flags)
}

// share is the part of the shared directory that belongs to one container.
//
//	<container>/rootfs      the root file system
//	<container>/mounts/<n>  one bind mount each
type share struct {
	host  string // path on the host
	stage string // directory on the host for mounts that are not shown yet
	name  string // path below the shared directory
	count int    // bind mounts so far
}

func (s *Sandbox) newShare(container string) (*share, error) {
	if container == "" || container == "." || container == ".." || strings.ContainsRune(container, '/') {
		return nil, fmt.Errorf("share container: %q is no name of a directory: %w", container, errdefs.ErrInvalidArgument)
	}
	sh := &share{name: container, host: filepath.Join(s.dir.Files(), container), stage: filepath.Join(s.dir.Stage(), container)}
	for _, dir := range []string{sh.host, filepath.Join(sh.host, "rootfs"), filepath.Join(sh.host, "mounts"), sh.stage} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("share container: %w", err)
		}
	}
	return sh, nil
}

// showRootfs shows what is mounted at source, or the directory itself, as the
// root file system.
func (sh *share) showRootfs(source string) error {
	tree, err := cloneMounts(source, true)
	if err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := protect(tree, writeAll, true); err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, filepath.Join(sh.host, "rootfs"), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	return nil
}

// writable says what may be written below a bind mount.
type writable uint8

const (
	writeAll     writable = iota // everything that the host allows
	writeBelow                   // not the mount itself, only other mounts below it (ro)
	writeNothing                 // nothing (rro)
)

// bind says what of the host is shown to the guest, and how.
type bind struct {
	source string // absolute path of a file or a directory
	access writable
	deep   bool // with what is mounted below it
	follow bool // and what the host mounts there later
}

// bind shows a file or a directory of the host to the guest and
// returns its path below the shared directory. A file is shown alone, without
// its directory.
//
// The mount is made, protected and only then put in place: virtiofsd gets a
// copy of it at that moment, and does not see what is changed afterwards.
func (sh *share) bind(b bind) (string, error) {
	source := b.source
	tree, err := cloneMounts(source, b.deep)
	if err != nil {
		return "", fmt.Errorf("share %s: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := protect(tree, b.access, b.follow); err != nil {
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

// protect sets what a detached mount lets through: with follow later mounts of
// the host below it, never one back to the host, and writes as access says. The
// guest's kernel is told of that too, but is not trusted to obey.
func protect(tree int, access writable, follow bool) error {
	const all = unix.AT_EMPTY_PATH | unix.AT_RECURSIVE
	attr := &unix.MountAttr{Attr_set: harmless, Propagation: unix.MS_PRIVATE}
	if follow {
		attr.Propagation = unix.MS_SLAVE
	}
	if err := unix.MountSetattr(tree, "", all, attr); err != nil {
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
	for _, dir := range []string{sh.stage, sh.host} {
		if err := store.Unmount(dir); err != nil {
			return err // what is mounted must not be deleted
		}
		if err := store.RemoveTree(dir); err != nil {
			return err
		}
	}
	return nil
}
