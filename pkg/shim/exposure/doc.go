// Package exposure is what one container gets of the host's files: its root file system,
// its bind mounts and block devices, exposed to the guest ([Expose]), and files for those on the
// host who look at the container through its pid ([Exposure.OnHost]).
//
// An [Exposure] translates between a container's specification and its [View] of the
// sandbox's share, which is the package share's; it mounts nothing itself. Its methods
// are not called concurrently, and it has no goroutines. It must not know sandboxes,
// what becomes of the paths in the guest, and the guest's protocol.
package exposure
