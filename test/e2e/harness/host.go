//go:build e2e

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Host is a corner of the machine that belongs to one run: a directory, and
// all that mentions it.
type Host struct {
	Paths

	Dir       string
	Namespace string // of containerd; as unique as Dir

	containerd *exec.Cmd       // nil while none runs
	ended      <-chan struct{} // closed when it was reaped
	settings   Settings
	foreign    []string // sockets that were there before
	groups     string   // pattern of the names of cgroups that hold those of containers
}

// Settings are the keys of the shim's configuration that tests change.
type Settings struct {
	QEMU, Kernel, Image, VirtioFSD string
	KernelArg                      string // of the guest

	BootTimeout, CallTimeout string

	Templates   string // where they are
	NoTemplates bool   // every VM boots
	TypeConsole bool   // an operator may type on the console
	Background  bool   // shims have templates made that are missing
	Spare       int    // VMs that are kept ready
	SpareIdle   string // how long they wait for a pod

	Extra string // lines that follow, in the table [share]
	Raw   string // instead of all of the above, when not ""
}

// maxDir leaves room for the shim's sockets: containerd wants their directory to
// have at most 42 bytes.
const maxDir = 42 - len("/s")

// maxTemplates is how long the configuration lets the path of the templates be.
const maxTemplates = 54

// NewHost makes a Host. The caller must Close it.
func NewHost() (*Host, error) {
	paths, err := Find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ccv2-e2e-")
	if err != nil {
		return nil, err
	}
	h := &Host{Paths: paths, Dir: dir, Namespace: filepath.Base(dir), groups: filepath.Base(dir), foreign: usualSockets()}
	if len(dir) > maxDir {
		return nil, fmt.Errorf("%s has more than %d bytes: choose a shorter TMPDIR", dir, maxDir)
	}
	h.settings = Settings{QEMU: paths.QEMU, Kernel: paths.Kernel, Image: paths.Image, VirtioFSD: paths.VirtioFSD, BootTimeout: "20s", CallTimeout: "10s"}
	h.settings.SpareIdle = "30m"
	if withSpares {
		h.settings.Spare, h.settings.Background = 1, true
	}
	h.settings.Templates, h.settings.NoTemplates = paths.Templates, noTemplates
	if len(paths.Templates) > maxTemplates {
		h.settings.Templates = filepath.Join(dir, "t")
	}
	if slow {
		h.settings.BootTimeout, h.settings.CallTimeout = "2m", "1m"
	}
	if err := h.writeConfig(h.settings); err != nil {
		return nil, err
	}
	return h, h.makeTemplate()
}

// noTemplates has every VM of a run boot. Otherwise they start from a template, of the usual
// size or of the least.
var noTemplates = os.Getenv("CCV2_TEMPLATES") == "off"

// makeTemplate makes the templates, unless they are there from an earlier run.
func (h *Host) makeTemplate() error {
	if noTemplates {
		return nil
	}
	for _, size := range [][]string{{"-memory", "1"}, nil} { // the spare VM is of the last one
		if err := h.template(append([]string{"build"}, size...)...); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the directory. What is mounted below is left, not deleted.
func (h *Host) Close() error {
	if withSpares {
		if err := h.endPool(); err != nil {
			return err
		}
	}
	if m := h.mounts(); len(m) > 0 {
		return fmt.Errorf("mounts are left: %s", strings.Join(m, ", "))
	}
	var errs []error
	for _, dir := range h.parentCgroups() {
		errs = append(errs, os.Remove(dir))
	}
	return errors.Join(append(errs, os.RemoveAll(h.Dir))...)
}

// StateDir is where the shims keep the state of their sandboxes.
func (h *Host) StateDir() string { return filepath.Join(h.Dir, "v") }

// Bundle is the path of a file in the bundle of a container.
func (h *Host) Bundle(container, file string) string {
	return filepath.Join(h.Dir, "state", "io.containerd.runtime.v2.task", h.Namespace, container, file)
}

// Exposed reports whether the root file system of a container is where a guest
// sees it, which is where the server of the share sees it.
func (h *Host) Exposed(container string) bool {
	rootfs := filepath.Join("/", container, "rootfs")
	return slices.ContainsFunc(h.FindAll(VirtioFSD), func(server Process) bool {
		return len(grep(fmt.Sprintf("/proc/%d/mountinfo", server.PID), rootfs, func([]string) string { return "exposed" })) > 0
	})
}

// FIFODir is where clients put the fifos of stdio.
func (h *Host) FIFODir() string { return filepath.Join(h.Dir, "f") }

// ConfigPath is the shim's configuration.
func (h *Host) ConfigPath() string { return filepath.Join(h.Dir, "ccv2.toml") }

func (h *Host) socketDir() string  { return filepath.Join(h.Dir, "s") }
func (h *Host) socketPath() string { return filepath.Join(h.Dir, "containerd.sock") }
func (h *Host) logPath() string    { return filepath.Join(h.Dir, "containerd.log") }

// Env is the environment of everything that is started on the Host.
func (h *Host) Env() []string {
	return append(os.Environ(), "CCV2_CONFIG="+h.ConfigPath(), "PATH="+h.Bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// own reports whether a process is the Host's containerd.
func (h *Host) own(pid int) bool { return h.containerd != nil && h.containerd.Process.Pid == pid }

// Configure changes the shim's configuration for the rest of the test. A shim
// reads it when its sandbox starts.
func (h *Host) Configure(tb testing.TB, change func(*Settings)) {
	tb.Helper()
	s := h.settings
	change(&s)
	if err := h.writeConfig(s); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.writeConfig(h.settings); err != nil {
			tb.Error(err)
		}
	})
}

func (h *Host) writeConfig(s Settings) error {
	text, args := s.Raw, ""
	if s.KernelArg != "" {
		args = strconv.Quote(s.KernelArg)
	}
	if text == "" {
		text = fmt.Sprintf(`state_dir = %s
[hypervisor]
path = %s
[guest]
kernel = %s
image = %s
kernel_args = [%s]
console_input = %t
boot_timeout = %s
call_timeout = %s
[template]
enabled = %t
background = %t
spare = %d
spare_idle = %s
dir = %s
[share]
virtiofsd = %s
%s
`, strconv.Quote(h.StateDir()), strconv.Quote(s.QEMU), strconv.Quote(s.Kernel), strconv.Quote(s.Image), args, s.TypeConsole,
			strconv.Quote(s.BootTimeout), strconv.Quote(s.CallTimeout), !s.NoTemplates, s.Background, s.Spare, strconv.Quote(s.SpareIdle), strconv.Quote(s.Templates),
			strconv.Quote(s.VirtioFSD), s.Extra)
	}
	return os.WriteFile(h.ConfigPath(), []byte(text), 0o600)
}
