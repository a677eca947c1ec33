//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestSpareNotLarger: where a guest cannot use what is plugged, one larger pod tries, those after it boot, and the VMs that
// are kept ready are those of pods of their size.
func TestSpareNotLarger(t *testing.T) {
	sparesOf(t, true, "module_blacklist=virtio_mem initcall_blacklist=virtio_mem_driver_init")
	larger := func(id string) {
		from(t, "boot", id, "--memory-limit="+fmt.Sprint(1<<30), "true")
		harness.Until(t, "the end of what makes spare VMs", func() bool { return len(makersOf(t)) == 0 })
	}
	before := notLarger()
	larger("larger-first")
	for _, id := range []string{"second", "third"} {
		pid := spareReady(t)
		larger("larger-" + id)
		if now := spareReady(t); now != pid {
			t.Errorf("the VM that was ready is pid %d, and was %d", now, pid)
		}
		from(t, "spare", "usual-"+id, "true") // which has another one made
	}
	if n := notLarger() - before; n != 1 {
		t.Errorf("the log says %d times that a VM was not made larger, want once", n)
	}
	if out, err := ccv2(t, "template", "list"); err != nil || !strings.Contains(out, "virtio_mem") {
		t.Errorf("ccv2 template list does not say why: %v\n%s", err, out)
	}
}

// TestSpareWithoutInterface: a guest that has no driver for an interface has spare VMs, for pods without one.
func TestSpareWithoutInterface(t *testing.T) {
	sparesOf(t, false, "module_blacklist=virtio_net initcall_blacklist=virtio_net_driver_init")
	from(t, "spare", "no-interface", "true")
}
