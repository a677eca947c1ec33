// Package hooks runs the hooks of the OCI runtime specification that are programs of
// the host: prestart and createRuntime before a container exists for its client,
// poststart when its init process runs, poststop when it is gone. They are called one
// after the other, in the bundle's directory, with the container's state as JSON on
// their standard input.
//
// createContainer and startContainer belong into the container's namespaces, and are
// the guest's (pkg/shim/guestspec). A createContainer hook is a program of the host,
// which is exposed to the guest (pkg/shim/exposure).
//
// It has no state. Each call runs one program at a time, and waits for it.
package hooks
