package qemu

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/virtiofsd"
)

// parentEnv makes the test binary a shim that starts a VM and waits.
const parentEnv = "CCV2_TEST_PARENT"

// parentMain starts a VM with a file server and prints the pids of all that
// it started, directly or not, on one line.
func parentMain() int {
	ctx := context.Background()
	dir := os.Getenv("DIR")
	spec := goldenSpec()
	spec.Accelerator, spec.SharedMemory, spec.Dir = hypervisor.AccelTCG, true, dir
	spec.Kernel, spec.Initrd, spec.Ports = os.Getenv("KERNEL"), os.Getenv("INITRD"), nil
	vm, err := New().Start(ctx, spec)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	socket := filepath.Join(dir, "fs.sock")
	server, err := virtiofsd.Start(ctx, virtiofsd.Options{Binary: virtiofsdBinary, SharedDir: dir, Socket: socket})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := hypervisor.PluggerOf(vm).Plug(ctx, hypervisor.FSDevice{ID: "fs", Tag: "fs", Socket: socket}); err != nil {
		fmt.Println(err)
		return 1
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", server.PID(), server.PID()))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(vm.PID(), server.PID(), string(children))
	<-vm.Done()
	return 0
}

// TestParentKilled kills the process that started a VM and a file server.
func TestParentKilled(t *testing.T) {
	kernel, initrd := guestFiles(t)
	if _, err := os.Stat(virtiofsdBinary); err != nil {
		t.Skipf("no virtiofsd: %v", err)
	}
	dir, err := os.MkdirTemp("", "ccv2-qemu")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnv+"=1", "KERNEL="+kernel, "INITRD="+initrd, "DIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var pidfds []unix.PollFd
	for field := range strings.FieldsSeq(line) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("the parent says %q: %s", line, stderr.String())
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		defer func() { _ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) }() // gone, if all is well
		pidfds = append(pidfds, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
	}
	const qemuServerAndItsChild = 3
	if len(pidfds) != qemuServerAndItsChild {
		t.Errorf("the parent started %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for i := range pidfds {
		if n, err := unix.Poll(pidfds[i:i+1], 10_000); n != 1 || err != nil {
			t.Errorf("process %d of %q lives on after the parent: %d, %v", i, line, n, err)
		}
	}
}
