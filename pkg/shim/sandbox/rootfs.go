package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
	"github.com/ccv2/containerd-shim-ccv2/pkg/thread"
)

// mountRootfs puts the root file system where the guest sees it: the mounts
// that containerd gave, or the directory that the specification names.
func (c *Container) mountRootfs() error {
	if len(c.Rootfs) > 0 {
		// Such a mount is made in steps, and the last one may be "read-only". The
		// guest gets a copy of it that no later step would reach.
		stage := c.share.stage
		// Processes that it starts for that can be told to die with the thread.
		if err := thread.Do(nil, func() error { return mount.All(c.Rootfs, stage) }); err != nil {
			return err
		}
		return errors.Join(c.share.showRootfs(stage), mounts.Unmount(stage))
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
	return c.share.showRootfs(path)
}
