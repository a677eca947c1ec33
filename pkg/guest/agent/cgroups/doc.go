// Package cgroups is the control groups of the containers: their processes and
// statistics, the reports of processes that the kernel killed because they were
// out of memory, and the huge pages that limits are about.
//
// It owns the groups below the agent's own one, the watches of their
// memory.events, and the count of huge pages that the guest has reserved. A group
// has no state here but its path; the OCI runtime makes it.
//
// Goroutines: an [OOMWatcher] has one, which [OOMWatcher.Close] joins.
//
// Locks: OOMWatcher.mu and HugePages.mu are leaves. The first one is not held
// while a report is sent. The second one is held while the kernel collects pages,
// because two containers must not count the same room.
//
// The package must never know how a container is created or who is told of what
// it finds.
package cgroups
