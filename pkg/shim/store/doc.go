// Package store records on disk what a sandbox acquires from the host, so that
// another process can release all of it after the shim has died.
//
// A sandbox has one directory:
//
//	state.json   the record, written before something is acquired
//	vm/          sockets of the VMM
//	files/       what the shim exposes to the guest
//	shared/      the same as the guest gets it: directories that it cannot
//	             change, with the mounts in them
//	stage/       where a root file system is mounted before it is exposed
//
// Processes are recorded after their start: until then their parent-death signal
// ends them with the shim.
//
// The bundle of each container names the directory in a file of its own
// (pkg/shim/bundle), which is how `delete`, which knows only the bundle, finds it.
//
// A record is missing, there, or of another version, which is refused. There is
// no goroutine and no lock: a record is replaced atomically, and only the shim
// that it names changes it.
//
// The package must never know the guest, containers, whether a shim lives, or how
// what it records is released (pkg/shim/reclaim).
package store
