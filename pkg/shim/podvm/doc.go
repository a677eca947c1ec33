// Package podvm is a pod's VM with everything that it needs on the host: the
// state directory, the cgroup, the network, the share and its server, the VMM,
// the proxy and the client of the guest.
//
// A [Machine] has one life:
//
//	New → Boot → (Pause ⇄ Resume) → PowerOff, Kill → Disconnect → Release
//
// Boot is a list of steps, each of which adds how to undo it before it acquires
// anything; Release undoes them, the last one first, after a Boot that failed,
// too. Up to the guest's READY nothing of the pod is in the VM, so that VMs can
// come from elsewhere: a [Source] has them, [Cold] boots each one.
//
// Goroutines: one each waits for the end of the VMM and of the share's server,
// and one serves the proxy's socket. The first end closes Lost, whose reason Err
// has. Release joins them. Locks: turn is held while the VMM pauses or resumes;
// the others guard what is read meanwhile, and are never held across a wait.
//
// The package knows no containers, no task API and no dialect of the guest, and
// does not decide what becomes of a pod whose VM is lost: that is
// pkg/shim/sandbox.
package podvm
