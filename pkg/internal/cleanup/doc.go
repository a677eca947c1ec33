// Package cleanup remembers how to release what was acquired, so that it can be
// released in the reverse order, whatever fails on the way.
//
// A [Stack] is a list under a lock, which is not held while a step runs. It has
// no goroutines, and must never know what the steps release.
package cleanup
