// Package mounts takes mounts and directories away from paths that are not
// trusted: below them a guest may rename directories and plant symbolic links.
//
// It owns nothing and has no state, goroutines or locks; its functions are
// idempotent, and safe for concurrent use. What is mounted is user data: it is
// detached, never entered and never deleted.
//
// It must not know what the paths are for. It does not make mounts, which
// belongs to whoever knows what they expose (pkg/shim/share).
package mounts
