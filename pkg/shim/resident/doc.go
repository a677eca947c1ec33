// Package resident keeps small what an idle process holds of its host's memory.
//
// A shim lives as long as its pod and works for some milliseconds of it. What it has
// read of its own program to start a pod, some 10 MiB, stays mapped, and what Go's heap
// has grown to stays its own, unless somebody gives both back.
//
// A [Trimmer] belongs to the one goroutine that calls it. There is no goroutine and no lock here,
// and it must never know what the process does.
package resident
