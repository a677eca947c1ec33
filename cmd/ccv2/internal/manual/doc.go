// Package manual writes manual pages from the commands that the tool has: what --help says and what
// the pages say is the same text.
//
// The package has no state and no goroutine. It must never know what a command does.
package manual
