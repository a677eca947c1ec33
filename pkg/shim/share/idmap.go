package share

import (
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// IDMap maps the owners of a volume's files. Its lists have
// "container:host:size" for each range, separated by commas; the zero value maps
// nothing.
//
// Volumes are mapped on the host, which has their file systems: the guest's
// virtiofs could not.
type IDMap struct {
	UIDs, GIDs string
	Deep       bool // what is mounted below the volume, too
}

// apply maps the ids of a detached mount.
func (i IDMap) apply(tree int) error {
	if i == (IDMap{}) {
		return nil
	}
	var users *os.File
	err := osthread.Run(func() (err error) { // the namespace's init process dies with the thread
		users, err = mount.GetUsernsFD(i.UIDs, i.GIDs)
		return err
	})
	if err != nil {
		return fmt.Errorf("map ids %s, %s: %w", i.UIDs, i.GIDs, err)
	}
	defer func() { _ = users.Close() }()
	flags := uint(unix.AT_EMPTY_PATH)
	if i.Deep {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())})
	if err != nil {
		return fmt.Errorf("map ids: its file system must support that (a pod with hostUsers: false needs it): %w", err)
	}
	return nil
}
