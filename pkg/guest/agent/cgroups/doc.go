// Package cgroups is the control groups of the containers: their processes and
// statistics, the reports of processes that the kernel killed because they were
// out of memory, the text that is locked so that it can tell when they are, and the
// huge pages that limits are about.
//
// It owns the groups below the agent's own one, the watches of their memory.events and
// memory.pressure, what it has locked of programs, and the count of huge pages that the
// guest has reserved. A group has no state here but its path; the OCI runtime makes it.
//
// Goroutines: an [OOMWatcher] has one for events, one for pressure, and one while text
// is locked or unlocked; [OOMWatcher.Close] joins them.
//
// Locks: OOMWatcher.mu, textKeeper.mu and HugePages.mu are leaves. The first one is not held
// while a report is sent. The last one is held while the kernel collects pages,
// because two containers must not count the same room. textKeeper.turn is held while
// the file server is waited for: by who locks text, for which others of the same kind do
// not wait, and by who removes a container.
//
// The package must never know how a container is created or who is told of what
// it finds.
package cgroups
