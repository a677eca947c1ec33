// Package commands writes the frames of a session, and knows which command a response
// answers. It has no goroutine; [Writer] says which lock comes first.
package commands
