package sandbox

import "path/filepath"

// mountRootfs exposes the root file system: the mounts that containerd gave, or
// the directory that the specification names.
func (c *Container) mountRootfs() error {
	if len(c.Rootfs) > 0 {
		return c.view.Rootfs(c.Rootfs)
	}
	path := "rootfs"
	if c.spec.Root != nil && c.spec.Root.Path != "" {
		path = c.spec.Root.Path
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.Bundle, path)
	}
	return c.view.RootfsDir(path)
}
