// Package network exposes the interfaces of a pod's network namespace to a VM.
//
// What a CNI plugin made stays where it is, with its name, addresses and
// counters. Beside each link the package makes a tap, and lets tc move every
// frame that arrives at one of the two out of the other:
//
//	network ── eth0 ─ingress→ mirred → tap ── VMM ── the guest's eth0
//	                ←mirred ←ingress─
//
// This takes any Ethernet link, whatever its kind, because it does not depend
// on what is at the other end. The guest gets the link's MAC, MTU and addresses
// and the namespace's routes and permanent neighbours, so that it answers in
// the link's place; the namespace's own stack no longer sees a frame.
//
// A [Namespace] is opened by path. No thread is left in it: sockets and taps
// are opened on a thread that enters the namespace and comes back, and are then
// used from anywhere. A namespace of our own ends with its last descriptor; in
// one that belongs to others, links stay connected until [Namespace.Disconnect]
// or [Cleanup].
//
// There is no goroutine that outlives a call, and no lock: a Namespace has one
// owner, pkg/shim/podnet. A [Watcher] may be closed while it waits.
//
// The package must never know what the guest has of all this, nor containers. It
// names addresses and routes by the types of the guest's protocol, and does not
// speak it.
package network
