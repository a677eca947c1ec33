package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// View is what one container has in the share.
//
//	<container>/rootfs  its root file system, also <container>~<n>/rootfs
//	.volumes/<n>        a bind mount, perhaps with other containers
//	.volumes/<n>/file   the same of a file
//	<live>/<n>          the same with [Bind.Live]
//
// Its methods are not called concurrently.
type View struct {
	name    string // path of its own directory
	stage   string // directory on the host for mounts that are not exposed yet
	guest   *guestMounts
	volumes *volumes
	used    []use
}

// RootfsName is the name of each container's root file system, which is the guest's
// alone.
const RootfsName = "rootfs"

// RootfsPath is the path of the root file system below the share.
func (v *View) RootfsPath() string { return filepath.Join(v.name, RootfsName) }

// Rootfs makes mounts, as containerd describes them, and exposes the result as
// the root file system.
func (v *View) Rootfs(all []mount.Mount) error {
	// Such a mount is made in steps, and the last one may be "read-only". The
	// guest gets a copy of it that no later step would reach.
	// The processes that it starts get a signal when the thread ends, see osthread.
	if err := osthread.Run(func() error { return mount.All(all, v.stage) }); err != nil {
		return err
	}
	return errors.Join(v.exposeRootfs(v.stage), mounts.Unmount(v.stage))
}

// RootfsDir exposes a directory as the root file system.
func (v *View) RootfsDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: %w", path, errdefs.ErrInvalidArgument)
	}
	return v.exposeRootfs(path)
}

// exposeRootfs exposes a directory, and what is mounted there and below.
func (v *View) exposeRootfs(source string) error {
	tree, err := cloneMounts(unix.AT_FDCWD, source, true)
	if err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := protect(tree, WriteAll, true); err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	if err := v.guest.attach(tree, v.RootfsPath()); err != nil {
		return fmt.Errorf("share %s: %w", source, err)
	}
	return nil
}

// Bind exposes a file or a directory of the host to the guest and returns its
// path below the share. With guard the guest must keep the container from
// writing: the host does it only as long as no other container may write there.
func (v *View) Bind(b Bind) (path string, guard bool, err error) {
	u, guard, err := v.volumes.acquire(b)
	if err != nil {
		return "", false, err
	}
	v.used = append(v.used, u)
	return u.path(), guard, nil
}

// Tree is a copy of what the guest has at a path of the share, that of the root file
// system or of a bind mount of this container. It is mounted nowhere, and the
// caller's, who closes it.
func (v *View) Tree(path string, readOnly bool) (*os.File, error) {
	fd, err := v.guest.copyOf(path)
	if err != nil {
		return nil, fmt.Errorf("copy the mounts of %s: %w", path, err)
	}
	tree := os.NewFile(uintptr(fd), path)
	if readOnly {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
			return nil, errors.Join(fmt.Errorf("make a copy of %s read-only: %w", path, err), tree.Close())
		}
	}
	return tree, nil
}

// Close unmounts what the container alone had, releases its volumes and removes
// its directories. It is idempotent.
func (v *View) Close() error {
	used := v.used
	v.used = nil
	var errs []error
	for _, u := range used {
		errs = append(errs, v.volumes.release(u))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := errors.Join(mounts.Unmount(v.stage), v.guest.detach(v.name)); err != nil {
		return err // what is mounted must not be deleted
	}
	return errors.Join(mounts.RemoveTree(v.stage), mounts.RemoveTree(v.guest.host(v.name)))
}
