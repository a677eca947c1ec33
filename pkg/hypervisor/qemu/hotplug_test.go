package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/virtiofsd"
)

// waitFor makes the guest wait for a path, at most 10 s.
func waitFor(path string) string {
	return waitUntil("[ -e " + path + " ]")
}

// waitForDisk is the same for a disk. That it can be opened is the last thing the kernel makes
// of a new one: after its node, its link in /sys/block and what is there.
func waitForDisk(name string) string {
	return waitUntil("(: </dev/" + name + ") 2>/dev/null")
}

func waitUntil(condition string) string {
	return fmt.Sprintf("i=0; until %s; do i=$((i+1)); [ $i -lt 10000 ] || break; usleep 1000; done; %s", condition, condition)
}

// bounded is a context for one monitor operation.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func plug(t *testing.T, vm hypervisor.Plugger, dev hypervisor.Device) {
	t.Helper()
	if err := vm.Plug(bounded(t), dev); err != nil {
		t.Fatal(err)
	}
}

func unplug(t *testing.T, vm hypervisor.Plugger, id string) {
	t.Helper()
	if err := vm.Unplug(bounded(t), id); err != nil {
		t.Fatal(err)
	}
}

func TestHotplugBlock(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	limitSlots(vm, 2)
	sh := open(t, vm)
	disk := diskImage(t, "hello from the host")

	const rounds = 5 // more than slots: they must come free again
	for i := range rounds {
		begin := time.Now()
		plug(t, vm, hypervisor.BlockDevice{ID: "disk", File: openDisk(t, disk, os.O_RDWR), Serial: "serial-1"})
		sh.run(waitForDisk("vda"))
		t.Logf("round %d: disk usable after %v", i, time.Since(begin).Round(time.Millisecond))
		if got, want := sh.run("head -c 19 /dev/vda; echo; cat /sys/block/vda/serial; echo"), "hello from the host\nserial-1"; got != want {
			t.Fatalf("guest reads %q, want %q", got, want)
		}
		begin = time.Now()
		unplug(t, vm, "disk")
		t.Logf("round %d: unplugged after %v", i, time.Since(begin).Round(time.Millisecond))
		sh.run("[ ! -e /dev/vda ]")
	}
}

func TestHotplugReadOnlyBlock(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	plug(t, vm, hypervisor.BlockDevice{ID: "0_disk", File: openDisk(t, diskImage(t, "x"), os.O_RDONLY), ReadOnly: true})
	sh.run(waitForDisk("vda"))
	if got := sh.run("cat /sys/block/vda/ro"); got != "1" {
		t.Errorf("ro = %q, want 1", got)
	}
}

func TestHotplugErrors(t *testing.T) {
	spec := testSpec(t)
	spec.SharedMemory = false
	vm := boot(t, spec)
	limitSlots(vm, 1)
	sh := open(t, vm)
	disk := diskImage(t, "x")
	tests := []struct {
		name string
		dev  hypervisor.Device
		want error
	}{
		{"bad id", hypervisor.BlockDevice{ID: "a,b", File: openDisk(t, disk, os.O_RDWR)}, errdefs.ErrInvalidArgument},
		{"no disk", hypervisor.BlockDevice{ID: "a"}, errdefs.ErrInvalidArgument},
		{"disk is a directory", hypervisor.BlockDevice{ID: "a", File: openDisk(t, filepath.Dir(disk), os.O_RDONLY)}, errdefs.ErrInvalidArgument},
		{"disk is a device of characters", hypervisor.BlockDevice{ID: "a", File: openDisk(t, "/dev/null", os.O_RDWR)}, errdefs.ErrInvalidArgument},
		{"long serial", hypervisor.BlockDevice{ID: "a", File: openDisk(t, disk, os.O_RDWR), Serial: "123456789012345678901"}, errdefs.ErrInvalidArgument},
		{"no tap", hypervisor.NetDevice{ID: "a", MAC: "02:00:00:00:00:01"}, errdefs.ErrInvalidArgument},
		{"bad mac", hypervisor.NetDevice{ID: "a", MAC: "nonsense", Tap: os.Stdin}, errdefs.ErrInvalidArgument},
		{"group mac", hypervisor.NetDevice{ID: "a", MAC: "01:00:00:00:00:01", Tap: os.Stdin}, errdefs.ErrInvalidArgument},
		{"bad mtu", hypervisor.NetDevice{ID: "a", MAC: "02:00:00:00:00:01", MTU: 1, Tap: os.Stdin}, errdefs.ErrInvalidArgument},
		{"virtiofs without shared memory", hypervisor.FSDevice{ID: "a", Tag: "a", Socket: "/x"}, errdefs.ErrFailedPrecondition},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := vm.Plug(bounded(t), tt.dev); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want class %v", err, tt.want)
			}
		})
	}
	// Not a tap: QEMU takes the descriptor and refuses it later.
	file, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := vm.Plug(bounded(t), hypervisor.NetDevice{ID: "a", MAC: "02:00:00:00:00:01", Tap: file}); err == nil {
		t.Error("a file was plugged as a tap")
	}
	if err := vm.Plug(bounded(t), hypervisor.NetDevice{ID: "a", MAC: "02:00:00:00:00:01", Tap: file, Vhost: file}); err == nil {
		t.Error("a file was plugged as a tap with vhost-net")
	}
	// The one slot is free after all that, and then it is not.
	plug(t, vm, hypervisor.BlockDevice{ID: "a", File: openDisk(t, disk, os.O_RDWR)})
	sh.run(waitForDisk("vda"))
	if err := vm.Plug(bounded(t), hypervisor.BlockDevice{ID: "a", File: openDisk(t, disk, os.O_RDWR)}); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("same id again: %v", err)
	}
	if err := vm.Plug(bounded(t), hypervisor.BlockDevice{ID: "b", File: openDisk(t, disk, os.O_RDWR)}); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("no slot: %v", err)
	}
	if err := vm.Unplug(bounded(t), "b"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unplug of an unknown device: %v", err)
	}
}

// TestUnplugPaused asks a guest that cannot answer.
func TestUnplugPaused(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	plug(t, vm, hypervisor.BlockDevice{ID: "disk", File: openDisk(t, diskImage(t, "x"), os.O_RDWR)})
	sh.run(waitForDisk("vda"))
	if err := vm.Pause(bounded(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := vm.Unplug(ctx, "disk"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("unplug from a paused guest: %v", err)
	}
	if err := vm.Resume(bounded(t)); err != nil {
		t.Fatal(err)
	}
	unplug(t, vm, "disk")
	sh.run("[ ! -e /dev/vda ]")
}

func TestHotplugNet(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	tap := newTap(t)
	for range 2 {
		begin := time.Now()
		plug(t, vm, hypervisor.NetDevice{ID: "eth0", MAC: "02:00:00:00:00:01", MTU: 1400, Tap: tap})
		sh.run(waitFor("/sys/class/net/eth0"))
		t.Logf("interface usable after %v", time.Since(begin).Round(time.Millisecond))
		if got, want := sh.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu"), "02:00:00:00:00:01\n1400"; got != want {
			t.Errorf("guest has %q, want %q", got, want)
		}
		sh.run("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up && ping -c 1 -W 10 192.0.2.1")
		unplug(t, vm, "eth0")
		sh.run("[ ! -e /sys/class/net/eth0 ]")
	}
}

func TestHotplugVirtioFS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	shared := sharedMount(t)
	write(t, filepath.Join(shared, "file"), "from the host")

	begin := time.Now()
	server := serve(t, shared, filepath.Join(spec.Dir, "fs.sock"))
	plug(t, vm, hypervisor.FSDevice{ID: "fs", Tag: "pod", Socket: filepath.Join(spec.Dir, "fs.sock")})
	sh.run("i=0; until mount -t virtiofs pod /mnt 2>/dev/null || [ $i -gt 5000 ]; do i=$((i+1)); usleep 1000; done; grep -q virtiofs /proc/mounts")
	t.Logf("mounted after %v", time.Since(begin).Round(time.Millisecond))
	if got := sh.run("cat /mnt/file; echo"); got != "from the host" {
		t.Errorf("guest reads %q", got)
	}
	sh.run("echo from the guest >/mnt/reply")
	if got, err := os.ReadFile(filepath.Join(shared, "reply")); string(got) != "from the guest\n" {
		t.Errorf("host reads %q, %v", got, err)
	}

	// What the host mounts later is there, and goes away.
	late := filepath.Join(shared, "late")
	if err := os.Mkdir(late, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("late", late, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(late, "file"), "mounted later")
	if got := sh.run("cat /mnt/late/file; echo"); got != "mounted later" {
		t.Errorf("guest reads %q", got)
	}
	// Without MNT_DETACH it is busy while the guest remembers the file.
	if err := unix.Unmount(late, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount on the host: %v", err)
	}
	if out, status := sh.try("sleep 1; cat /mnt/late/file"); status == 0 { // 1 s is its cache's time
		t.Errorf("guest still reads %q", out)
	}

	sh.run("umount /mnt")
	unplug(t, vm, "fs")
	<-server.Done() // its only client is gone
}

// TestHotplugBlockDevice plugs a block device of the host twice, as two pods may have it
// that share a volume.
func TestHotplugBlockDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	image := diskImage(t, "hello from the host")
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", "4096", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", loop).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", loop, err, out)
		}
	})
	vm := boot(t, testSpec(t))
	sh := open(t, vm)
	plug(t, vm, hypervisor.BlockDevice{ID: "first", File: openDisk(t, loop, os.O_RDWR)})
	sh.run(waitForDisk("vda"))
	plug(t, vm, hypervisor.BlockDevice{ID: "second", File: openDisk(t, loop, os.O_RDONLY), ReadOnly: true})
	sh.run(waitForDisk("vdb"))
	if got, want := sh.run("cat /sys/block/vd?/queue/logical_block_size /sys/block/vd?/queue/physical_block_size /sys/block/vd?/ro"), "4096\n4096\n4096\n4096\n0\n1"; got != want {
		t.Errorf("sizes of sectors, and read-only: %q, want %q", got, want)
	}
	sh.run("echo written by the guest | dd of=/dev/vda conv=notrunc && sync")
	if got, err := os.ReadFile(loop); err != nil || !strings.HasPrefix(string(got), "written by the guest\n") {
		t.Errorf("the host has %.22q, %v", got, err)
	}
	for _, id := range []string{"first", "second"} {
		unplug(t, vm, id)
	}
	if holders := descriptorsOf(t, vm.PID(), loop); holders != 0 {
		t.Errorf("QEMU has %d descriptors of %s", holders, loop)
	}
}

// descriptorsOf is how many descriptors of a file a process has.
func descriptorsOf(t *testing.T, pid int, path string) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("descriptors of process %d: %v", pid, err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == path {
			n++
		}
	}
	return n
}

// openDisk opens what is to be a disk, until the test has ended.
func openDisk(t *testing.T, path string, mode int) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, mode, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func diskImage(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	write(t, path, content)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newTap returns a tap with address 192.0.2.1 in a network namespace that ends
// with it.
func newTap(t *testing.T) *os.File {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and iproute2")
	}
	type result struct {
		tap *os.File
		err error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends in the other namespace
		tap, err := openTap()
		results <- result{tap, err}
	}()
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.tap.Close() })
	return r.tap
}

func openTap() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	tap := os.NewFile(uintptr(fd), "tap0")
	req, err := unix.NewIfreq("tap0")
	if err != nil {
		return nil, errors.Join(err, tap.Close())
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, errors.Join(err, tap.Close())
	}
	out, err := exec.Command("sh", "-c", "ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, out), tap.Close())
	}
	return tap, nil
}

// sharedMount returns a directory that is a mount with shared propagation.
func sharedMount(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

func serve(t *testing.T, dir, socket string) *virtiofsd.Server {
	t.Helper()
	if _, err := os.Stat(virtiofsdBinary); err != nil {
		t.Skipf("no virtiofsd: %v", err)
	}
	server, err := virtiofsd.Start(t.Context(), virtiofsd.Options{Binary: virtiofsdBinary, SharedDir: dir, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}
