package sandbox

// mountRootfs exposes the root file system: the mounts that containerd gave, or
// the directory that the specification names.
func (c *Container) mountRootfs() error {
	if len(c.Rootfs) > 0 {
		return c.view.Rootfs(c.Rootfs)
	}
	return c.view.RootfsDir(c.bundle.RootfsDir())
}
