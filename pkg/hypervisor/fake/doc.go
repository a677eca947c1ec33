// Package fake makes virtual machines for tests: it needs neither root nor QEMU.
//
// A [VM] has a child process in place of a VMM, so that its pid can be recorded,
// moved and killed like one, and a function of the test in place of a guest. Its
// ports are connections in memory. A [Driver] can be told which step fails.
//
// States of a VM: it runs from Start on, and ends by Kill, by [VM.Die] or by a
// signal to its process; then its ports are closed and Done is.
//
// Goroutines: one for each VM, which waits for the process, and one for its
// guest. [Driver.Close] ends the VMs and joins both. Driver.mu and VM.mu are
// leaves.
//
// The package must not know what the guest's function speaks on the ports.
package fake
