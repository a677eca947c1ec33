package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// waitDone waits for the end of a VM.
func waitDone(t *testing.T, vm hypervisor.VM) hypervisor.Exit {
	t.Helper()
	select {
	case <-vm.Done():
	case <-time.After(bootTimeout):
		t.Fatalf("the vm does not end; console: %q", vm.ConsoleTail(20))
	}
	return vm.Exit()
}

func TestPowerOff(t *testing.T) {
	spec := testSpec(t)
	disk := openDisk(t, spec.Kernel, os.O_RDONLY)
	before := openFiles(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	if got := vm.Exit(); got != (hypervisor.Exit{}) {
		t.Errorf("exit of a running vm: %+v", got)
	}
	if _, err := sh.conn.Write([]byte("poweroff -f\n")); err != nil {
		t.Fatal(err)
	}
	if got := waitDone(t, vm); got != (hypervisor.Exit{}) {
		t.Errorf("exit %+v, want code 0", got)
	}
	for name, err := range map[string]error{
		"pause":  vm.Pause(t.Context()),
		"resume": vm.Resume(t.Context()),
		"plug":   vm.Plug(t.Context(), hypervisor.BlockDevice{ID: "a", File: disk, ReadOnly: true}),
	} {
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Errorf("kill after the end: %v", err)
	}
	sh.conn.Close()
	// Fewer are files of another test, which the garbage collector has closed.
	if after := openFiles(t); after > before {
		t.Errorf("%d open files, %d before", after, before)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestPanic(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	begin := time.Now()
	if _, err := sh.conn.Write([]byte("echo c >/proc/sysrq-trigger\n")); err != nil {
		t.Fatal(err)
	}
	waitDone(t, vm)
	t.Logf("ended %v after the panic", time.Since(begin).Round(time.Millisecond))
	if tail := strings.Join(vm.ConsoleTail(200), "\n"); !strings.Contains(tail, "Kernel panic") {
		t.Errorf("no panic on the console:\n%s", tail)
	}
}

func TestPauseResume(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	for range 2 {
		if err := vm.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sh.conn.Write([]byte("echo alive\n")); err != nil {
		t.Fatal(err)
	}
	if err := sh.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := sh.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a paused guest wrote %q, %v", b, err)
	}
	for range 2 {
		if err := vm.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := sh.line(); got != "alive" {
		t.Errorf("guest wrote %q", got)
	}
}

// TestKill kills from several sides, and from outside.
func TestKill(t *testing.T) {
	t.Run("by us", func(t *testing.T) {
		spec := testSpec(t)
		vm := boot(t, spec)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := vm.Kill(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := vm.Exit().Signal; got != int(unix.SIGKILL) {
			t.Errorf("signal %d", got)
		}
	})
	t.Run("by another", func(t *testing.T) {
		spec := testSpec(t)
		vm := boot(t, spec)
		if err := unix.Kill(vm.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := waitDone(t, vm).Signal; got != int(unix.SIGKILL) {
			t.Errorf("signal %d", got)
		}
	})
	t.Run("context ended", func(t *testing.T) {
		spec := testSpec(t)
		vm := boot(t, spec)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := vm.Kill(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		waitDone(t, vm)
	})
}

// TestRefused has QEMU itself say what is wrong.
func TestRefused(t *testing.T) {
	spec := testSpec(t)
	spec.Dir = filepath.Join(spec.Dir, "no")
	_, err := New().Start(t.Context(), spec)
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "port0.sock") {
		t.Errorf("error %v", err)
	}
}

// TestBrokenKernel boots what only looks like a kernel: the machine must end or
// hang by itself, and go when it is killed.
func TestBrokenKernel(t *testing.T) {
	spec := testSpec(t)
	kernel, err := os.ReadFile(spec.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	spec.Kernel = filepath.Join(t.TempDir(), "broken")
	// The boot header stays, the payload does not.
	write(t, spec.Kernel, string(kernel[:16<<10])+strings.Repeat("\xf4", len(kernel)-16<<10))
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	vm, err := New().Start(ctx, spec)
	if err != nil {
		t.Logf("refused: %v", err)
		return
	}
	if err := vm.Kill(ctx); err != nil {
		t.Error(err)
	}
}

func TestMicroVM(t *testing.T) {
	spec := testSpec(t)
	spec.Machine = hypervisor.MachineMicroVM
	spec.Shares9P = []hypervisor.Share9P{{Tag: "share", Dir: t.TempDir()}}
	vm := boot(t, spec)
	sh := open(t, vm)
	t.Logf("exec to the guest's message %v", time.Since(vm.Timeline().Exec).Round(time.Millisecond))
	err := vm.Plug(t.Context(), hypervisor.BlockDevice{ID: "a", File: openDisk(t, spec.Kernel, os.O_RDONLY), ReadOnly: true})
	if !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("plug: %v", err)
	}
	if _, err := sh.conn.Write([]byte("echo c >/proc/sysrq-trigger\n")); err != nil {
		t.Fatal(err)
	}
	waitDone(t, vm)
}

// TestClock has the guest's clock run as fast as the host's.
func TestClock(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	uptime := func() (time.Duration, time.Time) {
		out := sh.run("cat /proc/uptime")
		seconds, err := strconv.ParseFloat(strings.Fields(out)[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(seconds * float64(time.Second)), time.Now()
	}
	guest0, host0 := uptime()
	sh.run("sleep 1")
	guest1, host1 := uptime()
	guest, host := guest1-guest0, host1.Sub(host0)
	if ratio := float64(guest) / float64(host); ratio < 0.9 || ratio > 1.1 {
		t.Errorf("%v in the guest are %v on the host", guest, host)
	}
}

func TestProcess(t *testing.T) {
	spec := testSpec(t)
	spec.CPUs = 2
	spec.Shares9P = []hypervisor.Share9P{{Tag: "share", Dir: t.TempDir()}}
	vm := boot(t, spec)
	sh := open(t, vm)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", vm.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Seccomp:\t2", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in QEMU's status", want)
		}
	}
	if got := sh.run("grep -c ^processor /proc/cpuinfo"); got != "2" {
		t.Errorf("%s CPUs in the guest, want 2", got)
	}
	const virtio9P = "0x0009"
	if got := strings.Fields(sh.run("cat /sys/bus/virtio/devices/*/device")); !slices.Contains(got, virtio9P) {
		t.Errorf("virtio devices %q, want %s among them", got, virtio9P)
	}
}
