// Package agent is the guest's side of the ccv2 dialect: it runs as PID 1 of
// the VM and starts OCI containers through crun or runc.
//
// It owns the control port with its commands, the pod, the containers and their
// processes. The rest is in packages that it puts together, and that know neither it
// nor each other:
//
//	commands    the control port: commands and their answers
//	machine     the guest without containers: boot, modules, ports, settings
//	netconf     interfaces, routes and neighbours
//	streams     standard streams, between a process and the tty port
//	cgroups     control groups, OOM reports, locked text, huge pages
//	rlimits     limits that a specification need not have
//	shared      the share, made safe to mount
//	original    what hosts of an original dialect ask for, as an OCI specification
//	shell       a shell on the console, where there is to be one
//	ociruntime  invocations of the OCI runtime, and the reaper; below it, a fake
//
// A new command is a row of [Agent]'s handlers and a method of what it is about.
// What a container needs of the OCI runtime and of its control group is in the
// interfaces [Runtime] and [Group].
//
// The agent trusts the host and nothing else. It never crashes on a malformed
// message, and it never lets one process's streams or one slow command hold up
// another, but for a host of an original dialect, which has no way to say that it may.
//
// # States
//
// They are written in states.go only, by the functions that look into the tables;
// a test writes the tables here.
//
//	pod        not started     → being started, destroyed
//	pod        being started   → not started, already started, destroyed
//	pod        already started → destroyed
//	pod        destroyed       → destroyed
//	container  being created   → created
//	container  created         → being started, stopped
//	container  being started   → running, stopped
//	container  running         → being paused, stopped
//	container  being paused    → running, paused, stopped
//	container  paused          → being resumed, stopped
//	container  being resumed   → running, paused, stopped
//	container  stopped         → being removed
//	container  being removed   → stopped
//	process    being started   → running, finished
//	process    running         → exited
//	process    exited          → reported
//	process    reported        → finished
//	process    finished
//
// A container is stopped when its init process has exited. The host may use the id
// of a process again when its exit was reported, which is before its end when
// descendants keep the streams open. A process that was not started is finished.
//
// # Goroutines
//
// The control port's reader is [Run] itself. The tty port's reader, the reaper, the
// readers of the kernel's events and of OOM events, and the driver loaders live as
// long as the VM. Every CALL has one, joined when the control port ends, and there
// are at most 64. Every process has one that reports its end, beside those of
// its streams; containers.background joins them.
//
// # Locks
//
// In this order: containers.mu and container.mu, of which no two are held at once.
// container.update and pod.mu are taken with nothing held. The control port's
// writer has a lock across its write, which keeps messages whole; no other lock is
// held while the host, the OCI runtime or a device is waited for, but for
// container.update, which serialises the updates of one container.
//
// The package must never know how the host names files or what a share is made of. What
// other dialects say is turned into this one in originals.go.
package agent
