package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// memory is a new file for a VM's RAM.
func memory(t *testing.T, spec hypervisor.Spec) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(spec.MemoryMiB) << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestSave: two VMs go on from where one was, each with devices of its own.
func TestSave(t *testing.T) {
	spec := testSpec(t)
	spec.Snapshot = &hypervisor.Snapshot{Memory: memory(t, spec)}
	before, err := New().Fingerprint(spec)
	if err != nil {
		t.Fatal(err)
	}
	vm := boot(t, spec)
	sh := open(t, vm)
	sh.run("waits=1; mine=before; echo kept >/dev/kept")
	saved, err := vm.Save(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of state", len(saved))
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"first", "second"} {
		clone := testSpec(t)
		clone.ID = name
		clone.Snapshot = &hypervisor.Snapshot{Memory: memory(t, clone), Devices: saved}
		if _, err := io.Copy(io.NewOffsetWriter(clone.Snapshot.Memory, 0), io.NewSectionReader(spec.Snapshot.Memory, 0, int64(spec.MemoryMiB)<<20)); err != nil {
			t.Fatal(err)
		}
		clone.Kernel, clone.Initrd = spec.Kernel, spec.Initrd
		if got, err := New().Fingerprint(clone); got != before || err != nil {
			t.Errorf("another fingerprint: %v\n%s\n%s", err, before, got)
		}
		vm := boot(t, clone)
		conn, err := vm.Dial(t.Context(), "test.shell")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sh := attach(t, conn)
		if got := sh.run(`echo "$mine $(cat /dev/kept)"; mine=` + name); got != "before kept" {
			t.Errorf("%s VM: %q", name, got)
		}
		plug(t, vm, hypervisor.BlockDevice{ID: "disk", File: openDisk(t, diskImage(t, name+" disk"), os.O_RDWR), Serial: "disk"})
		sh.run(waitForDisk("vda"))
		if got := sh.run(fmt.Sprintf("head -c %d /dev/vda; echo", len(name+" disk"))); got != name+" disk" {
			t.Errorf("%s VM reads %q", name, got)
		}
		if _, err := vm.Save(t.Context()); err != nil {
			t.Errorf("save it again: %v", err)
		}
	}
}

// TestBadSaved: what cannot be restored is an error that says so, and leaves nothing.
func TestBadSaved(t *testing.T) {
	for name, saved := range map[string][]byte{
		"garbage": bytes.Repeat([]byte("garbage"), 100<<10), "half": []byte("QEVM\x00\x00\x00\x03"),
	} {
		t.Run(name, func(t *testing.T) {
			spec := testSpec(t)
			spec.Snapshot = &hypervisor.Snapshot{Memory: memory(t, spec), Devices: saved}
			ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
			defer cancel()
			_, err := New().Start(ctx, spec)
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
		})
	}
}

func TestSaveWithoutFile(t *testing.T) {
	vm := boot(t, testSpec(t))
	if _, err := vm.Save(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("got %v", err)
	}
}

// TestFingerprint: whatever a saved state depends on makes another one.
func TestFingerprint(t *testing.T) {
	spec := hypervisor.Spec{
		ID: "a", Binary: fakeBinary(t, "exit 0"), Dir: "/run/a", Machine: hypervisor.MachineQ35,
		Accelerator: hypervisor.AccelTCG, Size: hypervisor.Size{CPUs: 1, MemoryMiB: 256}, SharedMemory: true, Image: hypervisor.Image{Kernel: fakeKernel(t)},
	}
	of := func(spec hypervisor.Spec) string {
		t.Helper()
		s, err := New().Fingerprint(spec)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := of(spec)
	same := spec
	same.ID, same.Dir = "b", "/run/b"
	if got := of(same); got != first {
		t.Errorf("another pod has another fingerprint:\n%s\n%s", first, got)
	}
	copied := filepath.Join(t.TempDir(), "kernel")
	content, err := os.ReadFile(spec.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	write(t, copied, string(content))
	for name, change := range map[string]func(*hypervisor.Spec){
		"memory": func(s *hypervisor.Spec) { s.MemoryMiB++ },
		"cpus":   func(s *hypervisor.Spec) { s.CPUs++ },
		"kernel": func(s *hypervisor.Spec) { s.Kernel = copied },
		"args":   func(s *hypervisor.Spec) { s.KernelArgs = []string{"debug"} },
		"ports":  func(s *hypervisor.Spec) { s.Ports = []string{"port"} },
		"binary": func(s *hypervisor.Spec) { s.Binary = fakeBinary(t, "exit 1") },
	} {
		other := spec
		change(&other)
		if of(other) == first {
			t.Errorf("another %s makes no other fingerprint", name)
		}
	}
	write(t, spec.Kernel, string(content)+" ")
	if of(spec) == first {
		t.Error("a kernel that was changed makes no other fingerprint")
	}
}

// TestFingerprintOfBundle: a bundle's QEMU is a link to a program that is the same for all of
// its programs, and for each QEMU.
func TestFingerprintOfBundle(t *testing.T) {
	root := t.TempDir()
	kernel, initrd := filepath.Join(root, "kernel"), filepath.Join(root, "initrd")
	program, lib := filepath.Join(root, "libexec/qemu"), filepath.Join(root, "lib")
	header := make([]byte, 0x206)
	copy(header[0x202:], "HdrS")
	for _, dir := range []string{"bin", "libexec", "lib"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path, content := range map[string][]byte{kernel: header, initrd: nil, program: []byte("one"), filepath.Join(root, "bin/ccv2-exec"): nil} {
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(root, "bin/qemu")
	if err := os.Symlink("ccv2-exec", binary); err != nil {
		t.Fatal(err)
	}
	fingerprint := func() string {
		s, err := New().Fingerprint(hypervisor.Spec{
			ID: "vm", Binary: binary, Machine: hypervisor.MachineQ35, Accelerator: hypervisor.AccelTCG,
			Size: hypervisor.Size{CPUs: 1, MemoryMiB: 512}, SharedMemory: true, Image: hypervisor.Image{Kernel: kernel, Initrd: initrd}, Dir: root,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := fingerprint()
	if err := os.WriteFile(program, []byte("another"), 0o700); err != nil {
		t.Fatal(err)
	}
	second := fingerprint()
	if first == second {
		t.Error("another QEMU makes no other fingerprint")
	}
	if err := os.WriteFile(filepath.Join(lib, "libc.so.6"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if fingerprint() == second {
		t.Error("another library makes no other fingerprint")
	}
}

// TestFingerprintOfKVM has what KVM's modules were told.
func TestFingerprintOfKVM(t *testing.T) {
	modules := t.TempDir()
	for module, value := range map[string]string{"kvm": "Y\n", "kvm_amd": "0\n", "other": "1\n"} {
		dir := filepath.Join(modules, module, "parameters")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "nested"), value)
	}
	want := []string{filepath.Join(modules, "kvm/parameters/nested") + ": Y", filepath.Join(modules, "kvm_amd/parameters/nested") + ": 0"}
	if diff := cmp.Diff(want, parameters(modules)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPark: a VM that one process has parked goes on in the hands of another one, as it was,
// from a directory that was renamed.
func TestPark(t *testing.T) {
	spec := testSpec(t)
	spec.Parked = true
	vm := boot(t, spec)
	sh := open(t, vm)
	sh.run("waits=1; mine=before; echo kept >/dev/kept")
	_ = sh.conn.Close()
	if err := vm.Park(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-vm.Done():
	default:
		t.Fatal("the VM is still this process's")
	}
	process, err := hostproc.Of("qemu", vm.PID())
	if err != nil {
		t.Fatal(err)
	}
	moved := spec
	moved.ID, moved.Dir = "adopted", filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(spec.Dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	adopted, err := New().Adopt(t.Context(), moved, process)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = adopted.Kill(context.WithoutCancel(t.Context())) })
	conn, err := adopted.Dial(t.Context(), "test.shell")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	again := attach(t, conn)
	if got := again.run("echo $mine; cat /dev/kept"); got != "before\nkept" {
		t.Errorf("the guest says %q", got)
	}
	if err := adopted.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-vm.proc.Done() // here its parent lives
	if exit := adopted.Exit(); !exit.Unknown || process.Alive() {
		t.Errorf("%v, alive: %v", exit, process.Alive())
	}
	if left, err := os.ReadDir(moved.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
