// Package proxyproto is the Clear Containers proxy protocol, version 2: the
// frames between a client (a runtime, a shim, an operator's tool) and the proxy
// that owns the channels of a VM.
//
// Every message is one frame, a header of at least three 32-bit words and a
// payload. All integers are big endian:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	┌───────────────────────────────┬───────────────┬───────────────┐
//	│            version            │ header words  │   reserved    │
//	├───────────────────────────────┼─────┬─┬───────┼───────────────┤
//	│           reserved            │ res │E│ type  │    opcode     │
//	├───────────────────────────────┴─────┴─┴───────┴───────────────┤
//	│                    payload length in bytes                    │
//	├───────────────────────────────────────────────────────────────┤
//	│         header words 4 to 255, skipped when present           │
//	├───────────────────────────────────────────────────────────────┤
//	│                            payload                            │
//	└───────────────────────────────────────────────────────────────┘
//
// Commands go from client to proxy and are answered by exactly one response
// with the same opcode (DisconnectShim is answered by the end of the
// connection). Streams and notifications are not answered. There is no request
// id: responses come in the order of the commands.
//
//	client                         proxy
//	  │ command  AttachVM            │
//	  ├─────────────────────────────▶│
//	  │ response AttachVM (tokens)   │
//	  │◀─────────────────────────────┤
//	  │ command  ConnectShim (token) │
//	  ├─────────────────────────────▶│
//	  │ response ConnectShim         │
//	  │◀─────────────────────────────┤
//	  │ stream   stdin               │
//	  ├─────────────────────────────▶│
//	  │ stream   stdout, stderr      │
//	  │◀─────────────────────────────┤
//	  │ notification ProcessExited   │
//	  │◀─────────────────────────────┤
//	  │ command  DisconnectShim      │
//	  ├─────────────────────────────▶│
//
// [Reader] and [Writer] code frames, the structs in this package are the JSON
// payloads, and PROTOCOL.md has the numbered rules that the tests cite.
//
// The package uses the standard library only, starts no goroutine and logs
// nothing.
package proxyproto
