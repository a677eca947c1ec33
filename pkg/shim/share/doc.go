// Package share is what a sandbox exposes of the host's files to its guest: the
// root file systems and the bind mounts of its containers.
//
// It owns the two directories of the share, the mounts below them and the stage
// for mounts that are not exposed yet. A [Shares] belongs to one sandbox, a
// [View] to one container; a volume belongs to all views that use it, and is
// counted.
//
// States of [Shares]: made ([New]), prepared ([Shares.Prepare]), entered
// ([Shares.Enter], when a server of its own serves the share), closed
// ([Shares.Close]). Views come between Prepare and Close. A view that is closed
// later than that only removes its directories: the mounts went with the server.
//
// It has no goroutines. What has to run in another mount namespace runs on a
// thread that ends with the call.
//
// A volume is one file system for the guest, so it is exposed once: to those that
// read and those that write, and to those that have a part of it. Where that is
// not possible, see mountKey, there are two.
//
// Lock order: volume.mu, then guestMounts.mu. Both are held while mounts are
// changed, which is local work of the kernel. volumes.mu guards the table alone
// and is held with no other; who finds a volume there that is not yet exposed
// waits for it without the lock.
//
// It must not know the OCI specification, what a container is for, the guest's
// protocol, or which VMM serves the share: its callers translate to [Bind] and
// to paths. Where a path of the share appears in the guest is theirs, too.
//
// The guest is not trusted. It gets the mounts that it was given and nothing
// above them, and a path that it could have changed is never resolved here.
package share
