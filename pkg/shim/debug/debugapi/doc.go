// Package debugapi is the protocol of a shim's debug service: what debug.proto says, and
// the documents in it, as types that are encoded in JSON.
//
// A version of the protocol adds fields and methods; another service stands beside it
// where that does not do. The code of debug.proto is generated (make generate).
//
// The package has no states, goroutines or locks. It must never know how the service gets
// what it tells.
package debugapi
