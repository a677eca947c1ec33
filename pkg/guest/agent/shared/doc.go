// Package shared is the agent's side of the shared file system: it makes what
// the containers' specifications name there safe to mount, and the same for all
// of them.
//
// Two things are done before the OCI runtime sees a specification.
//
// The file systems of the host that are below the share are automounted by the
// kernel when a path first leads over them, in the mount namespace of whoever
// walks: every container would have a file system of its own, and with it
// sockets and locks of its own. So the agent walks first. The mount stays in its
// namespace while a container uses it, and a container's runtime mounts from
// there. With the last user it is unmounted: the host's server then closes what
// it has open of it.
//
// A path that goes on below such a file system leads through directories that
// containers write to, and where they may put links. It is resolved below the
// file system, without links, and mounted in a directory of the container that
// only the agent writes to; the runtime gets that path.
//
// Some volumes are copied (hyperstart.LiveVolumes): those that the host changes while
// programs wait for it with inotify, which sees nothing of what another kernel does. The
// copy is brought up to date when the host says so, by the steps of a kubelet.
//
// Others are the guest's own, in its memory: the pod's scratch space that is a tmpfs
// on the host. It has to be there from the first container that has it to the end of the pod,
// whichever containers there are meanwhile.
//
// A [Table] owns the mounts below its directory and the automounts. A submount
// is in use, or being unmounted: then whoever wants it waits for the end of that.
//
// It has no goroutines. The lock of the table is not held while the host's server is
// waited for, nor with that of a copy, which is.
//
// It must not know what the files are for, nor the messages to and from the host.
package shared
