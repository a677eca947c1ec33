// Package hyperstart is the wire contract between the host and the agent in
// the guest: control messages, tty messages and their JSON payloads.
//
// Two byte streams connect host and guest, each a virtio-serial port. The
// control port carries commands and their replies:
//
//	u32 code | u32 length (header included) | payload
//
// The tty port carries the standard streams of all processes:
//
//	u64 sequence | u32 length (header included) | payload
//
// All integers are big endian. PROTOCOL.md has the rules, with numbers that
// the tests cite.
//
// Three agents of the past and ours share the headers and the codes 0 to 22.
// Above 22 they differ, so everything that depends on the guest takes a
// [Dialect], which [DialectOf] derives from the version that the guest answers.
//
// It owns codecs, codes, payloads, classes of errors and what dialects differ in.
// Names and paths that are not in messages are package layout's. Readers keep a
// buffer between messages and nothing else here has a state.
//
// The package uses the standard library only, starts no goroutine, has no lock and
// logs nothing. It must never know who reads or writes the streams: the host's
// and the guest's side both use it.
package hyperstart
