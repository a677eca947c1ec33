// Package vmconfig turns a valid configuration and the limits of a pod into what
// a VM is made of: its size, its files, its deadlines. It is the same for every
// command that boots one.
//
// It owns two decisions: the size of a VM ([Size]), and how much longer
// everything may take under emulation. It reads how large the host is, and has
// no state, no goroutine and no lock.
//
// It must never know where a configuration comes from, nor how a VM is booted.
package vmconfig
