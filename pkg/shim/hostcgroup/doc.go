// Package hostcgroup puts the processes of a sandbox (VMM, virtiofsd, shim)
// into the cgroup that containerd names for it, which for a pod is below the pod's,
// and bounds what they use where nobody else does.
//
// The library of runc makes and removes the group: in the unified hierarchy (v2), in
// one hierarchy per controller (v1) or in both (hybrid), by itself or as a scope of
// systemd, which would remove or empty a group that it does not know. With v1 memory
// is counted from the start while the processor's quota comes later.
//
// A [Group] is opened ([Open]), and may have this process in it ([Group.Enter] to
// [Group.Leave]). What is below a group is read from the kernel each time, so that
// another process finds the same. A Group belongs to one caller at a time, but for
// [Group.Limit]. What may wait for systemd does so in a goroutine, which may outlive a
// context that ends.
//
// An [Aside] is the group of VMs that are no sandbox's, one for the host.
//
// The package must never know what the processes are, nor when a sandbox ends.
package hostcgroup
