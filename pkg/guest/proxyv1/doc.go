// Package proxyv1 serves clients of version 1 of the proxy protocol (pkg/proxyproto/v1: JSON, the
// runtime and shim of Clear Containers 2.1) on a server of version 2.
//
//	client ── JSON ──▶ Proxy ── frames ──▶ proxy.Server ──▶ guest
//	client ◀── tty messages, on a descriptor of its own ──┘
//
// Each connection of a client is a connection of version 2, over which its requests go. What version 1
// calls streams are sessions of version 2: allocateIO asks for a token, claims it, and translates between the
// frames of that session and the tty messages that the client has. The sequence numbers that clients
// see are this package's ([Proxy] counts them for each VM, from 1); the commands that name them are
// translated, and what the guest has for numbers no client learns. So flow, order and the end of a
// process are those of version 2, whatever the guest speaks.
//
// A [Proxy] owns the streams of all clients. A stream lives until its client closes the descriptor, which
// disconnects the session; the process goes on. It ends with its VM, too.
//
// Goroutines: one per connection, the caller's; two per stream. [Proxy.Close] joins the latter when the server of
// version 2 is closed. Locks: Proxy.mu guards the table, stream.mu the commands that wait
// for an answer; both are leaves. stream.turn keeps the order of what is written to a session, and is held as long as the
// process takes no input; who reads output needs neither.
//
// It must not know what a container is.
package proxyv1
