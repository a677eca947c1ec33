// Package machine is the guest without its containers: root file system, mounts,
// kernel modules, devices, the ports to the host, and the settings of the kernel
// that a pod chooses.
//
// A guest boots in two steps, because the first one is part of the start of every
// pod:
//
//	Boot ──→ ports can be found ──Prepare──→ containers can be run
//
// Drivers are loaded in the phases of package layout. What no phase has, the
// kernel asks for, through a process that is [Modprobe].
//
// Goroutines: the reader of the kernel's events lives as long as the VM; the
// driver of interfaces is loaded beside it. Locks: uevents.mu is a leaf.
//
// The package must never know a container, a process or a message of the host.
package machine
