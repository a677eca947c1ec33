package mounts

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// CheckRoot refuses paths that can only come from a damaged record: "" and "/"
// mean the whole host.
func CheckRoot(dir string) error {
	if clean := filepath.Clean(dir); !filepath.IsAbs(clean) || clean == "/" {
		return fmt.Errorf("clean up %q: not a directory of a sandbox: %w", dir, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Unmount detaches every mount at and below dir, and returns nil only when none
// is left. It is idempotent.
//
// Only mounts that are not below another one are named to the kernel, which
// takes those below with them: the way to a mount below a volume leads through
// the volume, where the guest could put a link into it.
func Unmount(dir string) error { return UnmountListed(dir, mountinfo.GetMounts) }

// UnmountListed is [Unmount] for a thread whose mounts list returns.
func UnmountListed(dir string, list func(mountinfo.FilterFunc) ([]*mountinfo.Info, error)) error {
	if err := CheckRoot(dir); err != nil {
		return err
	}
	const spare = 3 // mounts may come to light, or appear, while this runs
	for round, most := 0, spare; round < most; round++ {
		mounts, err := list(mountinfo.PrefixFilter(dir))
		if err != nil {
			return fmt.Errorf("list mounts of %s: %w", dir, err)
		}
		if len(mounts) == 0 {
			return nil
		}
		if round == 0 {
			most += len(mounts) // of several at one place a round takes one
		}
		if err := detach(topmost(mounts)); err != nil {
			return err
		}
	}
	return fmt.Errorf("unmount %s: mounts keep appearing", dir)
}

// topmost returns the mounts that are not below another one of them.
func topmost(mounts []*mountinfo.Info) []*mountinfo.Info {
	ids := make(map[int]bool, len(mounts))
	for _, m := range mounts {
		ids[m.ID] = true
	}
	return slices.DeleteFunc(mounts, func(m *mountinfo.Info) bool { return ids[m.Parent] })
}

func detach(mounts []*mountinfo.Info) error {
	var errs []error
	for _, m := range mounts {
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
