// Package proxy is the Clear Containers proxy, in process: it turns proxy
// frames into hyperstart messages and back.
//
//	client ── frames ──▶ Server ── pkg/guest/guestconn ──▶ agent in the guest
//
// A [Server] has a registry of VMs. A connection that registers or attaches to
// a VM sends commands to its guest with CmdHyper. Every token stands for one
// process to be: the connection that claims it with CmdConnectShim becomes the
// process's session and carries its streams, signals and exit status.
//
// The semantics are those of the original proxy 3.0.23, without its defects.
// What the original does not have are the commands in local.go: they are for
// clients that want one slow stream not to hold up anything else, and never
// reach the guest.
//
// Flow of output: guest ─▶ tty reader ─▶ session queue ─▶ session writer ─▶
// client. The tty reader never waits for a client as long as the guest keeps
// to its credits. An original guest knows no credits: there the queue is
// bounded by legacyBacklog, and when it is full the tty port, and so all
// output of that guest, waits for the slow client.
//
// Flow of stdin: client ─▶ connection reader ─▶ session queue ─▶ stdin pump ─▶
// guest, as fast as the guest grants.
//
// Goroutines: one per connection (the caller's of Serve), two per session, two
// per VM, and those of guestconn.Conn. Lock order: Server.mu, then VM.mu, then
// Session.mu; none of them is held across I/O. The locks that keep the order of
// frames on a connection (clientConn.wmu, sessionWriter.wmu) come before all
// others.
package proxy
