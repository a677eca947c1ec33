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

// TestOOMReportThatWaits has a host that does not take the report of one
// container: others can be watched, removed and reported meanwhile.
func TestOOMReportThatWaits(t *testing.T) {
	sending, taken := make(chan string, 8), make(chan struct{})
	w := newWatcher(t, func(id string) {
		sending <- id
		if id == "stuck" {
			<-taken
		}
	})
	stuck, other := newWatched(t), newWatched(t)
	w.Add("stuck", stuck)
	kills(t, stuck, 1)
	if got := <-sending; got != "stuck" {
		t.Fatalf("got %q", got)
	}
	second := make(chan struct{})
	go func() { w.Check("stuck"); close(second) }()

	w.Add("other", other)
	kills(t, other, 1)
	w.Check("other")
	if got := <-sending; got != "other" {
		t.Errorf("got %q", got)
	}
	w.Remove("other")

	// Who checks has the report behind it afterwards, whoever sent it.
	select {
	case <-second:
		t.Error("a check returned before the report was sent")
	default:
	}
	close(taken)
	<-second
	if len(sending) != 0 {
		t.Errorf("one more report: %s", <-sending)
	}
}
