// Package networktest makes network namespaces for tests.
//
// An [NS] owns a namespace that is mounted below the test's directory and goes
// with the test. The goroutine of [New] makes it on a thread of its own and ends
// before New returns. There is no lock.
//
// It must never know what is tested with it.
package networktest
