// Package memoryvolume finds the bind mounts that are volumes of a pod in memory: an
// emptyDir with the medium Memory, which a kubelet makes a tmpfs of on the host. The
// guest has such a volume in its own memory: with the file system that was asked for, at its
// speed, and counted in the limits of the containers that write to it.
//
// It reads paths and the host's table of mounts, and has no state and no goroutines. All
// mounts of a volume have one answer, whatever else they ask for, because their files have to be
// the same.
//
// It must not know what the guest does with its answer.
package memoryvolume
