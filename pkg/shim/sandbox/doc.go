// Package sandbox is the domain core of the shim: a sandbox is one VM, a
// container is a group of processes in it, a process has streams and an exit.
//
// It owns their states and the order of what is reported about them: a start before
// an exit, the exits of execs before that of the init process, each exit once,
// on disk before it is announced. Every change of state goes through the tables
// in state.go, and docs/architecture.md has their diagrams.
//
// What it needs it asks for: the VM and all that is on the host is a [Machine]
// (pkg/shim/podvm), what runs in the guest a client.Guest, what the guest's
// runtime gets is made by pkg/shim/guestspec. A container whose id is the
// sandbox's is its sandbox container (in a pod the pause container); nothing
// needs one to exist.
//
// Goroutines belong to the sandbox: the boot, the supervision of the VM, the stop,
// and per process the copies of its streams and the wait for its exit. They run
// under the sandbox's own context, requests only wait for them, and Stop joins
// them.
//
// Lock order: Sandbox.mu, then Container.mu, then Process.mu.
// No lock is held while the guest, the VMM or the disk is waited for: such waits
// happen in an in-between state (booting, starting, pausing, …), which is what a
// concurrent State answers.
//
// It must never know protobuf and ttrpc (pkg/shim/task translates), QEMU, the
// guest's dialect, mounts or netlink.
package sandbox
