// Package metrics tells Prometheus about the sandboxes of a host.
//
// A [Collector] asks all shims at each scrape, side by side, within a limit of time: one that
// hangs or is dead is told as such and holds up nobody. What is told of single pods is there as long
// as the pod is, of so many pods; the sums of the host count on when pods end: what a sandbox has counted at its end is in the journal that it
// leaves. They begin with the process.
//
// Collector.mu is held during a scrape, so that there is one at a time; goroutines are joined
// by it. The package must never hold up a pod, and changes nothing.
package metrics
