//go:build e2e

// Package harness runs the product as an operator does: a real containerd, real
// QEMU, the shim's own binary. Everything of a run is below one directory, the
// Host's, which is how the harness distinguishes its processes, mounts, sockets and
// files from those of others, and finds what a test has left behind.
//
// Nothing here sleeps: [Until] looks again and again, with a deadline.
package harness
