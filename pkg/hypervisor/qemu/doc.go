// Package qemu makes virtual machines with QEMU's system emulator.
//
// A machine is one QEMU process without default devices. The shim talks to it
// over an inherited socketpair (the monitor, package qmp) and reads the guest's
// console from another one; only the virtio-serial ports have sockets in the
// file system, which the caller need not know. The process is a child of an OS
// thread that lives as long as it does, so that it dies with the shim however the
// shim ends.
//
// Goroutines of a machine, all joined before Done is closed:
//
//	process   starts QEMU, waits for its end; locked to its OS thread
//	console   keeps the last lines of the guest's console
//	reap      notes devices that the guest has released, then joins the others
//	monitor   the two of package qmp
//
// A slot of the hot-plug bus is free, busy (a Plug or Unplug works on it) or in
// use; a device that the guest keeps stays in its slot.
//
// slotTable.mu and machine.mu are leaves. No lock is held while QEMU or the guest
// is waited for. The package must not know what runs in a machine.
package qemu
