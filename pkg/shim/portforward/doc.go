// Package portforward brings connections to the loopback of the pod's network
// namespace on the host, which is how the CRI forwards ports, to the loopback of
// the guest.
//
// A [Forwarder] owns a listener and the connections that it accepted: one
// goroutine accepts, and each connection has three more. Close ends all of them,
// whatever their clients do, and joins them. Each connection is a session with
// the guest; the package knows nothing of the protocol below it, and nothing of
// how the listener gets its connections (pkg/shim/network).
package portforward
