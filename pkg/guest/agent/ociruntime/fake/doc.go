// Package fake is an OCI runtime without containers, for tests. Its processes have
// real streams and do what the test tells them: they write, end, or get signals.
//
// [Runtime] has the methods of ociruntime.Runtime. A test looks a process up with
// [Runtime.Process], lets operations fail or wait with [Runtime.Fail] and
// [Runtime.Hold], and gives a container the control group of [Runtime.Group].
//
// It has no goroutine. Locks: Runtime.mu and Process.mu are leaves.
//
// The package must never know who tests with it.
package fake
