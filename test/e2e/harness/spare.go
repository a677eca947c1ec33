//go:build e2e

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// withSpares has every test of a run find a spare VM, which the shims replace in the background.
var withSpares = os.Getenv("CCV2_SPARE") == "1"

// pool is where the VMs are that are kept ready.
func (h *Host) pool() string { return filepath.Join(h.StateDir(), ".spare") }

// MakeSpare makes a spare VM of the usual size, unless there is one. The configuration asks for one.
func (h *Host) MakeSpare(tb testing.TB) {
	tb.Helper()
	if err := h.template("build"); err != nil {
		tb.Fatal(err)
	}
}

// EndSpares ends the VMs that are kept ready.
func (h *Host) EndSpares(tb testing.TB) {
	tb.Helper()
	if err := h.template("remove", "-spare"); err != nil {
		tb.Fatal(err)
	}
}

// NoSpares ends the VMs that are kept ready, and has none made for the rest of a test that is about other sources of VMs.
func (h *Host) NoSpares(tb testing.TB) {
	tb.Helper()
	if !withSpares {
		return
	}
	before := h.settings
	h.settings.Spare, h.settings.Background = 0, false
	h.Configure(tb, func(*Settings) {}) // at the end that of before
	tb.Cleanup(func() { h.settings = before })
	if err := h.endPool(); err != nil {
		tb.Fatal(err)
	}
}

// endPool ends the VMs that are kept ready, once nobody makes any.
func (h *Host) endPool() error {
	if !within(Patience, func() bool { return len(h.Makers()) == 0 }) {
		return fmt.Errorf("templates or spare VMs are made for ever: %v", h.Makers())
	}
	return h.template("remove", "-spare")
}

// Makers are the processes that make templates and spare VMs of the Host in the background: what they have to do, which is
// their standard input, names its directory.
func (h *Host) Makers() []Process {
	return slices.DeleteFunc(processes(), func(p Process) bool {
		if len(p.Args) != 2 || p.Args[1] != "make-template" {
			return true
		}
		job, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/0", p.PID))
		return err != nil || !strings.Contains(string(job), h.StateDir()) // it has ended, or is another one's
	})
}

func (h *Host) template(args ...string) error {
	cmd := exec.Command(filepath.Join(h.Bin, "ccv2"), append([]string{"template"}, args...)...) //nolint:noctx // it has a limit of its own
	cmd.Env = h.Env()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ccv2 template %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// madeIn matches the directory in which a spare VM was made.
var madeIn = regexp.MustCompile(`/\.spare/([0-9]+)\.part/`)

// kept reports whether a text names a VM that is kept ready, and no pod's. Those of pods have the names that they had then.
func (h *Host) kept(text string) bool {
	m := madeIn.FindStringSubmatch(text)
	if !withSpares || m == nil || !strings.Contains(text, h.pool()+"/") {
		return false
	}
	there, err := filepath.Glob(filepath.Join(h.pool(), "*"))
	return err == nil && slices.ContainsFunc(there, func(dir string) bool {
		return regexp.MustCompile(`^([0-9a-f]+\.)?` + m[1] + `(\.|$)`).MatchString(filepath.Base(dir))
	})
}

// waits reports whether a process waits for such VMs.
func (h *Host) waits(p Process) bool {
	return withSpares && slices.Contains(p.env, "CCV2_SPARE_POOL="+h.pool())
}

// ofPool reports whether a process is no pod's, but of the VMs that are kept ready.
func (h *Host) ofPool(p Process) bool { return h.kept(strings.Join(p.Args, "\n")) || h.waits(p) }

// adopted is the VMM of a sandbox that was a spare VM; 0 where it was none.
func (h *Host) adopted(id string) int {
	for _, namespace := range []string{h.Namespace, "k8s.io"} {
		if process, ok := store.DirOf(h.StateDir(), namespace, id).Spare(); ok {
			return process.PID
		}
	}
	return 0
}
