// Package stdio opens what containerd names in its requests for the standard
// streams of a process: fifos, files, and logging binaries.
//
// A fifo is opened for reading and writing at once, so that a reader may go and
// come again. Before that its first reader is awaited, as with runc's shim: one
// that opened it only after a short process had ended would wait indefinitely.
//
// [Streams] are open, then closed for output, then closed. A [Stdin] is opened by
// the first Read; clients come and go until it is finished, and it ends with the
// last of them.
//
// Goroutines: one per logging binary, which waits for the end of it;
// [Streams.Close] joins it. The copies belong to the caller (pkg/shim/sandbox).
// Locks: Stdin.mu is a leaf. shared.mu, which keeps the chunks of two streams
// whole, is held across the write; closing the stream ends that.
//
// The package must never know the guest, nor what a process is.
package stdio
