// Package placeholder has processes on the host that stand for those of a container,
// which run in a guest. Clients know a container by a pid, and look below /proc/PID
// for its files, its network, its name; they send signals to the pid, and list what
// is there with ps.
//
// A [Placeholder] is a container: a thread of the shim in namespaces of its own, which
// has the container's root file system and volumes as its root directory and nothing
// else of the host's files. Its processes ([Placeholder.Start]) are children of that
// thread, which inherit all of this, and end with the thread. Each runs a program of
// some hundred bytes (program.go) that waits for signals and writes their numbers to
// a socket: who sends one to the pid means the process in the guest.
//
// What of the container is only in the guest, such as its /proc, /dev and /tmp, is an
// empty directory here that nobody can write to: a file that is put there would not
// be the container's.
//
// States: open ([New]), closed ([Placeholder.Close]). Goroutines: the thread; one per
// process that reads its socket; a timer while processes are mirrored. Lock order:
// mirror.mu, then Placeholder.mu. Both are held while a process is started, which is
// local work of the kernel.
//
// The guest is not trusted: it has what it was given of the share, and a path that it
// could have changed is resolved below the container's root. The processes have no
// capabilities. The package knows nothing of sandboxes, bundles and the guest.
package placeholder
