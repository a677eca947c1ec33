// Package hostcgroup puts the processes of a sandbox (VMM, virtiofsd, shim)
// into the cgroup that containerd names for it, which is below the pod's. It
// makes directories and writes pids; limits are the business of whoever owns
// the pod's cgroup.
//
// Both layouts of a host are known: the unified hierarchy (v2), and one
// hierarchy per controller (v1), where memory can be counted from the start
// while the processor's quota comes later.
//
// A [Group] is opened ([Open]) or created ([Create]), and may have this process
// in it ([Group.Enter] to [Group.Leave]). What is below a group is read from the
// kernel each time, so that another process finds the same. There is no goroutine
// and no lock: a Group belongs to one caller at a time.
//
// The package must never know what the processes are, nor when a sandbox ends.
package hostcgroup
