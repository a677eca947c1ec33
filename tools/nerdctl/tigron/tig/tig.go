// Package tig stands in for the part of nerdctl's test framework that the
// program itself is linked with. The module that has it is not published.
package tig

// T is what a test is given.
type T interface {
	Helper()
	FailNow()
	Fail()
	Log(args ...any)
	Name() string
	TempDir() string
}
