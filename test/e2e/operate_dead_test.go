//go:build e2e

package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestOperateDead: what a dead shim leaves while containerd is not there is found, and
// removed when that is asked for.
func TestOperateDead(t *testing.T) {
	c := harness.Private(t)
	c.Watch(t)
	c.Running(t, "dead", harness.Streams{}, []string{"sleep", "1000"})
	shim := c.AwaitProcess(t, harness.Shim, "dead")
	c.Kill(t)
	shim.Signal(t, unix.SIGKILL)
	// A process that has got SIGKILL may take some time to release what it has.
	harness.Until(t, "end of the shim", func() bool {
		return strings.Contains(c.CCV2OK(t, "ps"), "is dead; containerd cleans up after it")
	})
	if r := c.CCV2(t, "events", "dead"); r.Code != 0 || !strings.Contains(r.Stdout, "start ") || !strings.Contains(r.Stderr, "has died") {
		t.Errorf("events: exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, command := range []string{"info", "console", "trace", "log-level", "dump", "kill", "shutdown"} {
		if r := c.CCV2(t, command, "dead"); r.Code != 5 || !strings.Contains(r.Stderr, "is dead") {
			t.Errorf("%s: exit code %d: %s%s", command, r.Code, r.Stdout, r.Stderr)
		}
	}
	if r := c.CCV2(t, "disk", "attach", "dead", "/dev/null"); r.Code != 5 || !strings.Contains(r.Stderr, "is dead") {
		t.Errorf("disk: exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if text := c.CCV2OK(t, "gc"); !strings.Contains(text, "nothing was removed") {
		t.Errorf("gc: %s", text)
	}
	t.Log(c.CCV2OK(t, "gc", "--remove"))
	if _, err := os.Stat(filepath.Join(c.StateDir(), c.Namespace, "dead")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if r := c.CCV2(t, "events", "dead"); r.Code != 0 || !strings.Contains(r.Stdout, "start ") {
		t.Errorf("events after the end: exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, role := range []harness.Role{harness.QEMU, harness.VirtioFSD} {
		if left := c.Find(role, "dead"); len(left) > 0 {
			t.Errorf("%s is still there", left)
		}
	}
	c.Restart(t)
}
