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
// A [Client] runs two goroutines, a reader and a writer. [Client.Close] and a
// failure of the connection end both.
package qmp
