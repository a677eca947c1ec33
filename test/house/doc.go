// Package house holds the module's sources to the budget of CONTRIBUTING.md, so
// that it cannot rot: sizes of files, functions, structs and packages, a doc.go
// for every package, one place for changes of state, and dialects of guests in
// the guest's packages alone. Which package may import which is test/imports'.
//
// It has tests only. They read the sources and run nothing of them.
package house
