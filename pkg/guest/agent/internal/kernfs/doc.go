// Package kernfs writes and parses the small text files of proc, sysfs and
// cgroupfs.
//
// It has no state, no lock and no goroutine, and it must never know what a file
// is about: every package of the agent uses it.
package kernfs
