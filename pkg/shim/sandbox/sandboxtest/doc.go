// Package sandboxtest has a machine in memory, so that sandboxes, and services
// over them, can be tested without root and without a VM.
//
// Its guest is one of pkg/guest/guesttest, whose processes do what their
// arguments say. The test loses the VM, fails a step of it or holds it up; what
// the sandbox did with the machine can be read off. A recorder keeps the events
// and holds their order to the rules of the task API.
package sandboxtest
