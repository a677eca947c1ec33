package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// mountRootfs puts the root file system where the guest sees it: the mounts
// that containerd gave, or the directory that the specification names.
func (c *Container) mountRootfs() error {
	target := c.share.rootfs()
	if len(c.Rootfs) > 0 {
		if err := mount.All(c.Rootfs, target); err != nil {
			return err
		}
		return unix.Mount("", target, "", unix.MS_SHARED, "")
	}
	path := "rootfs"
	if c.spec.Root != nil && c.spec.Root.Path != "" {
		path = c.spec.Root.Path
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.Bundle, path)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: %w", path, errdefs.ErrInvalidArgument)
	}
	return unix.Mount(path, target, "", unix.MS_BIND|unix.MS_REC, "")
}
