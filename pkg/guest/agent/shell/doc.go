// Package shell has a shell answer on the guest's console, where the kernel's command line names one: an operator who
// attaches to the console finds it, also when the agent hangs.
//
// [Serve] is a goroutine that lives as long as the VM; there is no lock. It must never know what else runs in the guest.
package shell
