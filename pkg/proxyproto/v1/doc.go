// Package v1 is version 1 of the Clear Containers proxy protocol, which the
// runtime and shim of Clear Containers 2.1 speak. It has nothing but its name
// in common with version 2.
//
// A message is a header and one JSON object, in both directions:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	┌───────────────────────────────────────────────────────────────┐
//	│            length of the JSON in bytes, big endian            │
//	├───────────────────────────────────────────────────────────────┤
//	│                           reserved                            │
//	├───────────────────────────────────────────────────────────────┤
//	│                             JSON                              │
//	└───────────────────────────────────────────────────────────────┘
//
// Each [Request] is answered by one [Response], in order. The response to
// allocateIO is followed by a file descriptor, see [SendFile]: it carries the
// tty messages of the guest (package hyperstart), both ways.
//
//	client                            proxy
//	  │ {"id":"allocateIO", …}         │
//	  ├───────────────────────────────▶│
//	  │ {"success":true, …}            │
//	  │◀───────────────────────────────┤
//	  │ 'F' + file descriptor          │
//	  │◀───────────────────────────────┤
//
// It is the codec alone; the server is pkg/guest/proxyv1.
//
// PROTOCOL.md has the numbered rules that the tests cite. The package uses the
// standard library only, starts no goroutine and logs nothing.
package v1
