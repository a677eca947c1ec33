// Package template starts VMs from one that has booted before.
//
// A template is a VM that was stopped when its guest was ready and nothing of a pod
// was in it: what its memory and its devices had then. A VM that goes on from there
// has memory of its own, a copy, which other processes can map: with virtiofs, a
// private mapping of the template's would not do. Only what is not zero is there to
// be copied, some tens of MiB.
//
// A [Store] has the templates of a host, each under a key made of all that it depends
// on: whatever changes makes another key. A template is written aside, by one process
// at a time, and renamed when it is whole; each part of it has a checksum. What is
// damaged or foreign is removed. A template can make a start faster, never make it
// fail: [Source] starts a VM without one whenever there is none that can be used.
//
// Where each clone must differ, the guest is told: see Reseed of pkg/guest/client.
//
// There is no goroutine that outlives a call, and no lock but that of a store's file.
package template
