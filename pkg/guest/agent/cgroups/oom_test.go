package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// newWatched returns a directory that looks like a group to the watcher.
func newWatched(t *testing.T) Group {
	t.Helper()
	g := Group(t.TempDir())
	kills(t, g, 0)
	return g
}

// kills makes the kernel's counter of a group say n.
func kills(t *testing.T, g Group, n int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(g), "memory.events"), fmt.Appendf(nil, "oom 9\noom_kill %d\n", n), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newWatcher(t *testing.T, notify func(string)) *OOMWatcher {
	t.Helper()
	w, err := NewOOMWatcher(notify)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// TestOOMReports counts each kill once, whether the kernel announces the change
// or an exit has it looked up.
func TestOOMReports(t *testing.T) {
	reports := make(chan string, 8)
	w := newWatcher(t, func(id string) { reports <- id })
	a, b := newWatched(t), newWatched(t)
	w.Add("a", a)
	w.Add("b", b)
	kills(t, a, 1)
	if got := <-reports; got != "a" {
		t.Errorf("got %q", got)
	}
	w.Check("a") // nothing new
	kills(t, b, 1)
	w.Check("b")
	if got := <-reports; got != "b" {
		t.Errorf("got %q", got)
	}
	w.Remove("a")
	kills(t, a, 2)
	w.Check("a")
	w.Remove("a")
	w.Add("none", Group(filepath.Join(t.TempDir(), "none"))) // no memory controller
	w.Check("none")
	if len(reports) != 0 {
		t.Errorf("one more report: %s", <-reports)
	}
}
