//go:build e2e

package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Process is a process of a Host.
type Process struct {
	PID  int
	Name string // base name of its program
	Args []string
	env  []string
}

func (p Process) String() string { return fmt.Sprintf("%s (pid %d)", p.Name, p.PID) }

// Role is what a process is for.
type Role string

// Roles, by the base name of the program.
const (
	Shim      Role = "containerd-shim-cc" // under either of its names
	QEMU      Role = "qemu-system-"
	VirtioFSD Role = "virtiofsd"
)

// Processes returns the processes that belong to the Host, by its directory in
// their arguments or their environment, without the test itself and without
// containerd.
func (h *Host) Processes() []Process {
	return slices.DeleteFunc(processes(), func(p Process) bool {
		return p.PID == os.Getpid() || h.own(p.PID) ||
			!strings.Contains(strings.Join(p.Args, "\n"), h.Dir) && !strings.Contains(strings.Join(p.env, "\n"), h.Dir)
	})
}

// processes are all of the machine.
func processes() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(args) == 0 { // gone, a zombie, or a thread of the kernel
			continue
		}
		env, _ := os.ReadFile(filepath.Join(dir, "environ")) // empty when it is just ending
		argv := strings.Split(strings.TrimRight(string(args), "\x00"), "\x00")
		all = append(all, Process{PID: pid, Name: filepath.Base(argv[0]), Args: argv, env: strings.Split(string(env), "\x00")})
	}
	slices.SortFunc(all, func(a, b Process) int { return a.PID - b.PID }) // parents before children
	return all
}

// Find returns the processes of a role that belong to the sandbox id. Helper
// processes of virtiofsd count as one with it: the parent comes first.
func (h *Host) Find(role Role, id string) []Process {
	var found []Process
	vmm := h.adopted(id)
	for _, p := range h.Processes() {
		if role == QEMU && p.PID == vmm {
			found = append(found, p)
			continue
		}
		if !strings.HasPrefix(p.Name, string(role)) {
			continue
		}
		for _, arg := range p.Args {
			if arg == id || strings.Contains(arg, "/"+id+"/") || strings.Contains(arg, "="+id+",") {
				found = append(found, p)
				break
			}
		}
	}
	return found
}

// FindAll returns the processes of a role, of all sandboxes. VMs that are kept ready are none of these.
func (h *Host) FindAll(role Role) []Process {
	return slices.DeleteFunc(h.Processes(), func(p Process) bool { return !strings.HasPrefix(p.Name, string(role)) || h.ofPool(p) })
}

// AwaitProcess waits for the first process of a role of a sandbox.
func (h *Host) AwaitProcess(tb testing.TB, role Role, id string) Process {
	tb.Helper()
	var found []Process
	Until(tb, fmt.Sprintf("process %s* of sandbox %s", role, id), func() bool {
		found = h.Find(role, id)
		return len(found) > 0
	})
	return found[0]
}

// Signal sends a signal to the very process. After a SIGSTOP it waits until the process
// stands still, which takes a busy host some time.
func (p Process) Signal(tb testing.TB, signal unix.Signal) {
	tb.Helper()
	if err := unix.Kill(p.PID, signal); err != nil {
		tb.Fatalf("signal %s to %s: %v", signal, p, err)
	}
	if signal == unix.SIGSTOP {
		Until(tb, "stop of "+p.String(), func() bool { return p.stat(tb)[0] == "T" })
	}
}

// stat are the fields of the process's stat from its state on.
func (p Process) stat(tb testing.TB) []string {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// FDs lists what the process holds open, as the kernel names it.
func (p Process) FDs(tb testing.TB) []string {
	tb.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatalf("list descriptors of %s: %v", p, err)
	}
	var fds []string
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			fds = append(fds, target)
		}
	}
	return fds
}
