package share

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harmless are the attributes of all mounts that the guest can write to: a
// device or a set-user-id program that it makes has no effect on the host, neither
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

// protect sets what a detached mount lets through: with follow later mounts of
// the host below it, never one back to the host, and writes as access says. The
// guest's kernel gets the same flags, but is not trusted to obey.
func protect(tree int, access Access, follow bool) error {
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
	case WriteAll:
		return nil
	case WriteBelow:
		flags = unix.AT_EMPTY_PATH
	case WriteNothing:
		flags = all
	}
	if err := unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	return nil
}
