// Package network shows the interfaces of a pod's network namespace to a VM.
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
// the link's place; the namespace's own stack sees no frame any more.
//
// A [Namespace] is opened by path. No thread is left in it: sockets and taps
// are opened on a thread that enters the namespace and comes back, and are then
// used from anywhere.
package network
