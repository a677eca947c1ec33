package qemu

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// memTotal is what the guest has, in MiB.
func memTotal(t *testing.T, sh *shell) int {
	t.Helper()
	n, err := strconv.Atoi(sh.run(`awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// until has the guest wait until a condition of its shell is met.
func until(sh *shell, condition string) {
	sh.t.Helper()
	sh.run(fmt.Sprintf("i=0; until %s || [ $i -gt 1000 ]; do i=$((i+1)); usleep 1000; done; %s", condition, condition))
}

// TestResize: a VM that goes on from another one gets vCPUs and memory, twice.
func TestResize(t *testing.T) {
	spec := testSpec(t)
	spec.Max = hypervisor.Size{CPUs: 4, MemoryMiB: 64 << 10}
	spec.Snapshot = &hypervisor.Snapshot{Memory: memory(t, spec)}
	vm := boot(t, spec)
	sh := open(t, vm)
	sh.run("waits=1")
	saved, err := vm.Save(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec.Snapshot.Devices = saved
	vm = boot(t, spec)
	conn, err := vm.Dial(t.Context(), "test.shell")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sh = attach(t, conn)
	base := memTotal(t, sh)
	// Emulated guests with newer kernels have none that come later: they do not know TCG.
	takesCPUs := sh.run("cat /sys/devices/system/cpu/possible") != "0"
	t.Log("it takes processors: ", takesCPUs)
	for _, to := range []hypervisor.Size{{CPUs: 3, MemoryMiB: 807}, {CPUs: 4, MemoryMiB: 4096}} {
		began := time.Now()
		if err := vm.Resize(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		t.Log("plugged", time.Since(began))
		want := base + to.MemoryMiB + to.MemoryMiB%2 - spec.MemoryMiB
		until(sh, fmt.Sprintf(`[ "$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)" -ge %d ]`, want))
		t.Log("memory", time.Since(began))
		if got := memTotal(t, sh); got != want {
			t.Errorf("the guest has %d MiB, want %d", got, want)
		}
		if !takesCPUs {
			continue
		}
		until(sh, fmt.Sprintf(`[ -e /sys/devices/system/cpu/cpu%d ]`, to.CPUs-1))
		t.Log("cpus there", time.Since(began))
		sh.run("for i in /sys/devices/system/cpu/cpu*/online; do [ $(cat $i) = 1 ] || echo 1 >$i; done")
		if got := sh.run("nproc"); got != strconv.Itoa(to.CPUs) {
			t.Errorf("the guest has %s vCPUs, want %d", got, to.CPUs)
		}
		t.Log("all", time.Since(began))
	}
	if err := vm.Resize(t.Context(), hypervisor.Size{CPUs: 4, MemoryMiB: 2048}); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("less: %v", err)
	}
	if err := vm.Resize(t.Context(), hypervisor.Size{CPUs: 5, MemoryMiB: 4096}); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("more than there can be: %v", err)
	}
}
