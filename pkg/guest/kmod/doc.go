// Package kmod is the table of the kernel modules in a guest's image. The
// image builder writes it from what the modules report of themselves, and the
// agent looks up in it what the kernel asks for.
//
// It does what depmod and modprobe do together, for the few modules of an
// image, of which all are needed sooner or later by somebody.
//
// It owns the table's text form and the matching of aliases; where the table is, is
// in package layout. It has no state, no goroutine and no lock, and it must never
// load a module.
package kmod
