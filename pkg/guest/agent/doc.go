// Package agent is the guest's side of the ccv2 dialect: it runs as PID 1 of
// the VM and starts OCI containers through crun or runc.
//
// The agent trusts the host and nothing else. It never crashes on a malformed
// message, and it never lets one process's streams or one slow command hold up
// another.
//
// Goroutines and who ends them: the ctl reader ([Agent.Run] itself), the tty
// reader, one call goroutine per CALL (bounded), the reaper, the uevent and the
// OOM watcher live as long as the VM; the stdin pump, the output pumps and the
// exit sender belong to a process and end with it.
//
// Lock order: container.mu, then process state, then reaper.mu. The writers'
// locks (ctl, tty) are leaves.
package agent
