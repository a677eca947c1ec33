package qemu

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// bootTimeout is for a machine without KVM that does something else as well.
const bootTimeout = 60 * time.Second

// testSpec returns a bootable spec with a shell on a port.
func testSpec(t *testing.T) hypervisor.Spec {
	t.Helper()
	kernel, initrd := guestFiles(t)
	dir, err := os.MkdirTemp("", "ccv2-qemu") // shorter than t.TempDir: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind in the VM's directory: %q, %v", left, err)
		}
		os.RemoveAll(dir)
	})
	return hypervisor.Spec{
		ID: "test", Binary: qemuBinary, Dir: dir,
		Machine: hypervisor.MachineQ35, Accelerator: hypervisor.AccelTCG,
		Size: hypervisor.Size{CPUs: 1, MemoryMiB: 256}, SharedMemory: true,
		Image: hypervisor.Image{Kernel: kernel, Initrd: initrd},
		Ports: []string{"test.shell"},
	}
}

// boot starts spec and kills the VM when the test ends.
func boot(t *testing.T, spec hypervisor.Spec) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	vm, err := New().Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(vm.PID(), 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d after Kill: %v", vm.PID(), err)
		}
		if t.Failed() {
			t.Logf("console: %s", strings.Join(vm.ConsoleTail(30), "\n"))
		}
	})
	m, ok := vm.(*machine)
	if !ok {
		t.Fatalf("a machine of type %T", vm)
	}
	return m
}

// limitSlots leaves a machine only some of its slots.
func limitSlots(m *machine, n int) {
	m.slots.mu.Lock()
	defer m.slots.mu.Unlock()
	m.slots.slots = m.slots.slots[:n]
}

// shell is the guest's shell.
type shell struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// open connects to the guest's shell and waits until it is there.
func open(t *testing.T, vm hypervisor.VM) *shell {
	t.Helper()
	conn, err := vm.Dial(t.Context(), "test.shell")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := attach(t, conn)
	if line := s.line(); line != "ready" {
		t.Fatalf("first line of the guest: %q", line)
	}
	return s
}

// attach is for a guest that has said that it is ready before.
func attach(t *testing.T, conn net.Conn) *shell {
	return &shell{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (s *shell) line() string {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(bootTimeout)); err != nil {
		s.t.Fatal(err)
	}
	line, err := s.r.ReadString('\n')
	if err != nil {
		s.t.Fatalf("guest shell: %v after %q", err, line)
	}
	return strings.TrimRight(line, "\r\n")
}

// try runs one command and returns its output and exit status.
func (s *shell) try(command string) (string, int) {
	s.t.Helper()
	if _, err := s.conn.Write([]byte(command + "\n")); err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for {
		line := s.line()
		if rc, ok := strings.CutPrefix(line, "@rc="); ok {
			status, err := strconv.Atoi(rc)
			if err != nil {
				s.t.Fatal(err)
			}
			return strings.Join(out, "\n"), status
		}
		out = append(out, line)
	}
}

// run is try for a command that must succeed.
func (s *shell) run(command string) string {
	s.t.Helper()
	out, status := s.try(command)
	if status != 0 {
		s.t.Fatalf("guest: %s: status %d: %s", command, status, out)
	}
	return out
}

func TestBoot(t *testing.T) {
	spec := testSpec(t)
	vm := boot(t, spec)
	sh := open(t, vm)
	ready := time.Now()
	tl := vm.Timeline()
	t.Logf("exec to monitor %v, to running %v, to the guest's message %v",
		tl.Monitor.Sub(tl.Exec).Round(time.Millisecond), tl.Running.Sub(tl.Exec).Round(time.Millisecond), ready.Sub(tl.Exec).Round(time.Millisecond))
	t.Log(sh.run("cat /proc/cmdline"))
}

func TestDial(t *testing.T) {
	vm := boot(t, testSpec(t))
	if _, err := vm.Dial(t.Context(), "other"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a port that is not there: %v", err)
	}
	open(t, vm).run("true")
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Dial(t.Context(), "test.shell"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}
