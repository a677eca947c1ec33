// Package proxy is the Clear Containers proxy, in process: it turns proxy
// frames into hyperstart messages and back.
//
//	client ── frames ──▶ Server ── pkg/guest/guestconn ──▶ agent in the guest
//
// A [Server] has a registry of VMs. A connection that registers or attaches to
// a VM sends commands to its guest with CmdHyper. Every token represents one
// process to be: the connection that claims it with CmdConnectShim becomes the
// process's session and carries its streams, signals and exit status. Clients
// in this process use pkg/guest/client over Server.Pipe; it must not be
// imported here.
//
// The semantics are those of the original proxy 3.0.23, without its defects.
// The original does not have the extensions (extension.go): they are for clients
// that want one slow stream not to hold up anything else, and never reach the
// guest.
//
// It owns tokens, sequence numbers, the flow of streams and the order of output
// before an exit. It must not know what containers are, nor what payloads of
// commands say beyond the sequence numbers and ids of processes.
//
// Flow of output: guest ─▶ tty reader ─▶ session queue ─▶ session writer ─▶
// client. The tty reader never waits for a client as long as the guest keeps
// to its credits. An original guest knows no credits: there the queue is
// bounded by compatBacklog, and when it is full the tty port, and so all
// output of that guest, waits for the slow client.
//
// Flow of stdin: client ─▶ connection reader ─▶ session queue ─▶ stdin pump ─▶
// guest, as fast as the guest grants.
//
// States: a VM is registered, then unregistered or lost. A session is claimed or
// not, its process is new, starting or started (startState), its output open or
// at its end, its exit unknown, known or delivered, and in the end it is ended.
//
// Goroutines: one per connection (the caller's of Serve) and one more while it
// waits for a command (watch), two per session, two per VM, and those of
// guestconn.Conn; Server.Close joins them. Lock order: Server.mu, then vm.mu,
// then session.mu; none of them is held across I/O. The lock that keeps the
// order of frames on a connection (clientConn.wmu) comes before all others.
package proxy
