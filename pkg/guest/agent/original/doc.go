// Package original turns what a host of an original dialect asks for into what this guest
// runs: a container and a process as hyperstart describes them (WIRE of Clear Containers, the
// Go agent's keys) into those of the OCI runtime specification, and a pod's network into that of
// the ccv2 dialect.
//
// A container gets process, ipc, mount and cgroup namespaces of its own, the pod's host name and network, fourteen capabilities unless others are
// named, /proc, /sys and /dev of the guest. What it asks for and cannot have is an error that names it:
// block devices, volumes of their own, ports.
//
// It has no state, no goroutines and no locks. The only files that it reads are /etc/passwd and /etc/group of
// a container's root file system, below which no link leads out. It must not know how containers are run.
package original
