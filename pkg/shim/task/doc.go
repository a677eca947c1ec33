// Package task is containerd's task service, versions 2 and 3, over pkg/shim/sandbox.
//
// Each method looks up, calls and converts; nothing is decided here but that an
// orphaned shim ends. docs/mapping.md says what becomes of
// each method. The interceptor is the one boundary of errors: their classes
// become codes there. The service owns no state and, but for that end, starts no
// goroutine. It must never know how a sandbox does what it does.
package task
