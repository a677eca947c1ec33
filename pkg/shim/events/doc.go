// Package events forwards the events of a sandbox to containerd, in their order.
//
// A [Queue] is the sink of a sandbox: it takes events without waiting, and one
// goroutine converts and publishes them, until Close. It knows what events look
// like on the wire, and nothing of why they happen.
package events
