// Package manager is the shim binary's command line: start, delete, info. Each
// is a short-lived process in the working directory of a bundle.
//
// start finds or starts the server process of the sandbox, which the annotations name,
// or the pids of other containers in the paths of namespaces. delete releases what
// a container, or its sandbox, has acquired, from disk alone: the shim may have
// been killed. The two commands of one bundle keep apart by its lock.
//
// There is no state beyond the bundle's files, no goroutine and no lock but the
// bundle's.
//
// It knows nothing of the VM and of the guest; what a sandbox has acquired is in
// pkg/shim/store.
package manager
