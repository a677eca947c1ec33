// Package trace has what passes between a host and a guest as lines for people and as a file for
// programs.
//
// The file is a pcap file (with nanoseconds) of the link type USER0, which Wireshark and others open: each packet
// is 8 bytes of ours, layer, direction and number of the connection, and a message as it was on the
// wire. What a guest has written is made printable (pkg/guest/wiretap does it).
//
// The package has no state and no goroutine. It must never know where messages come from.
package trace
