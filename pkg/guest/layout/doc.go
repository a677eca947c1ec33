// Package layout is what the host, the image builder and the agent must agree
// on beside the messages: the names of the guest's devices and where things are
// in its file system.
//
// It owns names, paths and the text form of the module list, and nothing else:
// no state, no goroutine, no lock. Paths that messages contain are in package
// hyperstart, and the form of the module table is package kmod's.
//
// It uses the standard library only, so that every side can import it, and it
// must never know which side does.
package layout
