// Package dnsrelay passes questions on to name servers that only the host can reach: they
// are on a loopback address in the pod's network namespace there, as that of Docker's
// networks is, and the guest has a loopback of its own.
//
// A [Relay] has for each server a socket of each kind on that address, at a port of its
// own, so that port 53 is free for what runs in the containers. Programs at the root of
// the control groups (redirect.go) turn what is sent to port 53 of the address to these
// sockets, and the answers to what was asked. Whole messages are passed on, never bytes:
// a guest reaches name servers by that, and nothing else.
//
// Goroutines: two per server, and one per TCP connection; they live as long as the guest.
// Relay.mu is held for maps alone. The package knows nothing of containers and of how
// the host gets the questions.
package dnsrelay
