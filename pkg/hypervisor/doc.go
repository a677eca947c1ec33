// Package hypervisor says what a virtual machine is to the shim, not how one
// is made; pkg/hypervisor/qemu makes them, pkg/hypervisor/fake makes some for
// tests.
//
// A VM has three phases. Driver.Start returns when the machine runs (the VMM
// answers its monitor and executes the guest's kernel). Then its ports are
// dialled, devices are plugged and unplugged, and the machine is paused and
// resumed. It ends when Done is closed: by Kill, by the guest's power-off, or
// because the VMM died. Methods that need a running machine return an error of
// class errdefs.ErrUnavailable after that.
//
// [VM] is what every kind of machine has. What only some have is an interface
// for itself ([Plugger], [Resizer]), which callers ask for, so that a VMM without it fits.
//
// The package owns types alone: no goroutine, no lock, no process. It must not
// know what runs in a VM, or for whom: a [Spec] has no pod and no container.
package hypervisor
