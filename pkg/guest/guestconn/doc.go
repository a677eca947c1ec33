// Package guestconn is the host's side of the hyperstart protocol: the
// handshake, commands on the control port, asynchronous events, and the shared
// tty port.
//
// It owns both ports. It must not know what commands and streams are about:
// payloads and sequence numbers pass as they are.
//
// Nothing here trusts the guest. Whatever breaks the protocol ends the
// connection with an error that says what the guest did; the owner of the VM
// then ends the pod.
//
// A command is sent when the control port is free, and occupies it until the
// guest has replied; a ccv2 guest replies at once and sends the result later, so
// commands run side by side. A command that is abandoned, because its context
// ends, frees its place among those at once; its result is dropped when it
// comes. A connection is waiting for READY, then open, then ended, and has an
// error from then on.
//
// Goroutines: two readers per Conn and one writer per command, joined by Close.
// Lock order: ttyWriter.mu, then Conn.mu; no lock is held while a handler runs,
// and Conn.mu not while a port is written.
package guestconn
