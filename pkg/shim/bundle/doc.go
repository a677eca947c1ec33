// Package bundle is a container's bundle: the directory that containerd makes
// for it. It has the one parse of config.json, what the annotations of the
// CRI's implementations mean, and the files that the shim leaves there.
//
// A [Bundle] is read once and never changed; what the guest gets is made from
// it by pkg/shim/guestspec. The package starts no goroutine and holds no lock
// but the file lock of [Lock]. It knows nothing of the VM, of the guest and of
// the sandbox's own directory (pkg/shim/store).
package bundle
