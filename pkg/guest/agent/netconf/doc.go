// Package netconf makes the guest's interfaces, addresses, routes and neighbours
// those that the host names.
//
// It owns what the host has named so far, and removes nothing else. Both commands
// are declarative: an interface has the addresses of its last SETUPINTERFACE, and
// the guest the routes and neighbours of its last SETUPROUTE. A new interface goes
//
//	announced ──its device is found by MAC──→ prepared ──→ known, and up
//
// and is forgotten when its device was unplugged.
//
// It has no goroutine. Network.turn serialises what changes the network. A
// command that waits, for its turn or for a device, ends with its context, and a
// command that waits for a device does not have the turn.
//
// The package must never know how a device is plugged, which container uses an
// interface, or what the host's network looks like.
package netconf
