// Package virtiofsd runs the file server that a guest mounts as virtiofs.
//
// The server's listening socket is made here and inherited, so it accepts
// connections from the moment that Start returns. It serves one VM: when that
// ends, or this process does, the server ends as well.
//
// A [Server] runs from [Start] on and has ended when its Done is closed. Its one
// goroutine is that of package child, which ends with the process. The package has
// no locks. It must not know what is shared, or with whom.
//
// Mounts. Each file system below the shared directory is one of its own in the
// guest, whose kernel mounts it when a path first leads over it.
//
// The server has a mount namespace of its own, whose mounts receive from the
// host's but do not send to it. What is mounted
// below the shared directory later becomes visible to the guest if that
// directory is a mount point with shared propagation:
//
//	mount --bind $dir $dir && mount --make-shared $dir
//
// The caller makes it so, and unmounts it after the server has ended. While the
// guest remembers files of such a mount the server has them open, and only
// umount with MNT_DETACH gets rid of it; it then goes from the guest's view as
// well, and the file system is released when the guest forgets the files or the
// server ends.
package virtiofsd
