// Package qmp is a client for QEMU's machine protocol: one JSON object per
// line over a Unix socket, with commands, their replies, and events.
//
//	client                               QEMU
//	                                 ◀── {"QMP": {"version": …}}          greeting
//	{"execute": "qmp_capabilities"}  ──▶
//	                                 ◀── {"return": {}}
//	{"execute": "stop", "id": 7}     ──▶
//	                                 ◀── {"event": "STOP", …}             any time
//	                                 ◀── {"return": {}, "id": 7}
//
// Every command carries an id, so any number can be in flight, and one that
// its caller gave up on does not disturb the others. Events go to bounded
// queues: a subscriber that does not read loses events and never stops the
// connection.
//
// A [Client] owns its connection: it is open from [New] until [Client.Close] or
// a failure, after which every call returns [ErrClosed]. It runs two goroutines,
// a reader and a writer, which both end then; Close joins them. Client.mu guards
// the tables of commands and subscriptions, and is not held while the connection
// is read or written.
//
// The package must not know what the commands do, or QEMU's devices.
package qmp
