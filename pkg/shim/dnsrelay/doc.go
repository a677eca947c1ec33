// Package dnsrelay asks name servers on the loopback of the pod's network namespace what
// the guest wants to know. Docker has one there, on 127.0.0.11, for the names on its
// networks. The guest has a loopback of its own, so that it cannot reach them.
//
// A [Relay] reads from the pod's resolv.conf which servers these are, again whenever it is
// told to, and has the guest turn what it sends to them to here. A guest gets whole
// messages of DNS to port 53 of those addresses and back; nothing else of the namespace's
// loopback is in its reach. Other servers are reached through the network, as by any host.
//
// Goroutines: one per question, of which there is a limit. Close joins them. Relay.mu is held for the fields alone; Relay.refreshing while the guest
// is told. The package knows nothing of containers and of the guest's protocol.
package dnsrelay
