// Package podnet keeps the guest's network the same as the pod's network
// namespace on the host: it is a reconciler between pkg/shim/network, which
// reads the namespace and makes taps, and the VM and the guest, which get
// devices, addresses and routes.
//
// A [Network] owns the open namespace, the taps that the VMM does not have yet,
// and what was last applied in the guest. Its life:
//
//	Open → Connect (taps, while the guest boots) → Attach (plug, configure) → Follow → Close
//
// Until Follow its methods belong to the boot, one after the other. Follow
// starts two goroutines, joined by Close: one waits for changes in the
// namespace, the other one owns the state from then on and reconciles, so that
// no lock is held while the VMM or the guest is waited for. Refresh asks that
// goroutine.
//
// The package knows nothing of containers, of the guest's dialect and of what is
// on disk.
package podnet
