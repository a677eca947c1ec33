package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
)

// shareDir makes the two directories of the share, which are mounts of the same
// directory: the shim makes a container's directories in the first, and they
// appear in the second, which the guest gets.
//
// Mounts are made where the server of the share lives. Where that is QEMU they
// are made in the first directory, and shared propagation takes them to the
// second. The guest's side cannot be written to above those mounts: a guest that could
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
	view, err := cloneMounts(unix.AT_FDCWD, files, false)
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

// cloneMounts returns a copy of what is mounted at path, or at dir when that is
// "", which is mounted nowhere yet; a deep one has all mounts below it.
func cloneMounts(dir int, path string, deep bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if deep {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(dir, path, flags)
}

// share is what a container has in the shared directory.
//
//	<container>/rootfs  its root file system
//	.volumes/<n>        a bind mount, perhaps with other containers
type share struct {
	name   string // path of its own directory
	stage  string // directory on the host for mounts that are not shown yet
	mounts *guestMounts
	all    *volumes
	used   []*volume
}

func (s *Sandbox) newShare(container string) (*share, error) {
	if container == "" || container[0] == '.' || strings.ContainsRune(container, '/') {
		return nil, fmt.Errorf("share container: %q is no name of a directory: %w", container, errdefs.ErrInvalidArgument)
	}
	sh := &share{name: container, stage: filepath.Join(s.dir.Stage(), container), mounts: s.guestMounts, all: s.volumes}
	host := sh.mounts.host(container)
	for _, dir := range []string{host, filepath.Join(host, "rootfs"), sh.stage} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("share container: %w", err)
		}
	}
	return sh, nil
}

// showRootfs shows what is mounted at source, or the directory itself, as the
// root file system.
func (sh *share) showRootfs(source string) error {
	tree, err := cloneMounts(unix.AT_FDCWD, source, true)
	if err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := protect(tree, writeAll, true); err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	if err := sh.mounts.attach(tree, filepath.Join(sh.name, "rootfs")); err != nil {
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
	ids    idMap
	deep   bool // with what is mounted below it
	follow bool // and what the host mounts there later
}

// bind shows a file or a directory of the host to the guest and returns its
// path below the shared directory. With guard the guest must keep the container
// from writing.
func (sh *share) bind(b bind) (name string, guard bool, err error) {
	vol, guard, err := sh.all.show(b)
	if err != nil {
		return "", false, err
	}
	sh.used = append(sh.used, vol)
	return filepath.Join(volumesDir, vol.name), guard, nil
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

// close takes the container's part back. It is idempotent.
func (sh *share) close() error {
	used := sh.used
	sh.used = nil
	var errs []error
	for _, vol := range used {
		errs = append(errs, sh.all.giveBack(vol))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := errors.Join(mounts.Unmount(sh.stage), sh.mounts.detach(sh.name)); err != nil {
		return err // what is mounted must not be deleted
	}
	return errors.Join(mounts.RemoveTree(sh.stage), mounts.RemoveTree(sh.mounts.host(sh.name)))
}
