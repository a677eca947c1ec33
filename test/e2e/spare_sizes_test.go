//go:build e2e

package e2e_test

import "testing"

// TestSpareWithoutInterface: a guest that has no driver for an interface has spare VMs, for pods without one.
func TestSpareWithoutInterface(t *testing.T) {
	sparesOf(t, false, "module_blacklist=virtio_net initcall_blacklist=virtio_net_driver_init")
	from(t, "spare", "no-interface", "true")
}
