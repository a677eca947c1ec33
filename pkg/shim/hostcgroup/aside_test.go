package hostcgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/cgroups"
)

// groupsOf are the lines of a process's groups.
func groupsOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAside: what this process starts in the group stays there when it leaves, also when others
// enter and leave, and the group goes with the last one, which may be moved to where this process is.
func TestAside(t *testing.T) {
	g := open(t, "aside")
	before := groupsOf(t, os.Getpid())
	a := &Aside{at: g.Path()}
	if err := errors.Join(a.Leave(), a.Enter(t.Context())); err != nil {
		t.Fatal(err)
	}
	if cgroups.IsCgroup2UnifiedMode() && g.Has("cpu") {
		if weight, err := os.ReadFile(filepath.Join(g.manager.Path(""), "cpu.weight")); err != nil || len(strings.TrimSpace(string(weight))) > 2 {
			t.Errorf("weight %q, %v", weight, err)
		}
	}
	started, end := startTwo(t)
	defer end()
	inGroup := func() bool { return g.has(t, "memory", started[0]) && g.has(t, "memory", started[1]) }
	if !inGroup() || strings.Contains(groupsOf(t, started[0]), "cpu:"+g.Path()) {
		t.Errorf("the processes are in\n%s", groupsOf(t, started[0]))
	}
	if err := a.Leave(); err != nil {
		t.Fatal(err)
	}
	if now := groupsOf(t, os.Getpid()); now != before {
		t.Errorf("this process is in\n%s\nafter\n%s", now, before)
	}
	other := &Aside{at: g.Path()}
	if err := errors.Join(other.Enter(t.Context()), other.Leave()); err != nil || !inGroup() {
		t.Errorf("beside another one: %v", err)
	}
	if err := a.Inherit(started[0]); err != nil {
		t.Fatal(err)
	}
	if now := groupsOf(t, started[0]); now != before {
		t.Errorf("the process is in\n%s\nwant\n%s", now, before)
	}
	a.RemoveEmpty()
	if !g.has(t, "memory", started[1]) {
		t.Error("the group was taken from a process")
	}
	end()
	a.RemoveEmpty()
	if left := g.dirs(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestAsideQuit: what was started in the group leaves it for the top, and the group goes with the last one.
func TestAsideQuit(t *testing.T) {
	g := open(t, "asidequit")
	before := groupsOf(t, os.Getpid())
	a, other := &Aside{at: g.Path()}, &Aside{at: g.Path()}
	if err := a.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.Quit(); err != nil {
		t.Error(err)
	}
	if now, left := groupsOf(t, os.Getpid()), g.dirs(); strings.Contains(now, g.Path()+"\n") || len(left) > 0 {
		t.Errorf("left: %v, and this process is in\n%s", left, now)
	}
	if err := other.Quit(); err != nil {
		t.Errorf("where it is in no group: %v", err)
	}
	// Back to where it was.
	if err := errors.Join(other.Enter(t.Context()), a.Leave()); err != nil {
		t.Error(err)
	}
	if now := groupsOf(t, os.Getpid()); now != before {
		t.Errorf("this process is in\n%s\nafter\n%s", now, before)
	}
}

// TestAsideGone: the group may go at any time before this process is in it.
func TestAsideGone(t *testing.T) {
	g := open(t, "asidegone")
	a := &Aside{at: g.Path()}
	for range 50 {
		var other sync.WaitGroup
		other.Go(func() { removeEmpty(g.dirs()) })
		if err := a.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		other.Wait()
		if !g.has(t, "memory", os.Getpid()) {
			t.Error("this process is not in the group")
		}
		if err := a.Leave(); err != nil {
			t.Error(err)
		}
	}
}
