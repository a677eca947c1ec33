package sandbox_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// TestPIDs: each container has one of its own, which its bundle has, too.
func TestPIDs(t *testing.T) {
	f := newFixture(t)
	seen := map[int]bool{}
	for _, id := range []string{podID, "one", "two"} {
		c := f.create(id, "a")
		if c.PID() == 0 || seen[c.PID()] {
			t.Errorf("container %s has pid %d", id, c.PID())
		}
		seen[c.PID()] = true
		if n, err := bundle.LoadNote(c.Bundle); err != nil || n.PID != c.PID() {
			t.Errorf("container %s: pid %d in the bundle, want %d (%v)", id, n.PID, c.PID(), err)
		}
	}
}

// TestJoin: a pid namespace is named by the container's pid on the host, and
// joined by that of its init process in the guest.
func TestJoin(t *testing.T) {
	f := newFixture(t)
	pod := f.create(podID, "a")
	two := f.create("two", "b")
	for i, test := range []struct {
		path string
		of   string // container whose namespace is joined; "" for an error
	}{
		{fmt.Sprintf("/proc/%d/ns/pid", pod.PID()), podID},
		{fmt.Sprintf("/proc/%d/ns/pid", two.PID()), "two"},
		{"/run/pidns/somewhere", podID},
		{"/proc/1/ns/pid", ""},
	} {
		id := fmt.Sprint("joiner", i)
		spec := &specs.Spec{
			Process: &specs.Process{Args: []string{"c"}},
			Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
				{Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"}, {Type: specs.PIDNamespace, Path: test.path},
			}},
		}
		_, err := f.Create(t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundleOf(id, spec)})
		if test.of == "" {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v", test.path, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		owner, err := f.machine.Agent.Processes(t.Context(), test.of)
		if err != nil {
			t.Fatal(err)
		}
		want := specs.LinuxNamespace{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", owner[0].PID)}
		if created, _ := f.machine.Agent.Created(id); !slices.Contains(created.Spec.Linux.Namespaces, want) {
			t.Errorf("%s: the guest got %+v, want %+v", test.path, created.Spec.Linux.Namespaces, want)
		}
	}
}

// TestJoinInAnOriginalGuest, which cannot say where a process is and joins
// nothing: the container is created nevertheless.
func TestJoinInAnOriginalGuest(t *testing.T) {
	f := newFixture(t)
	pod := f.create(podID, "a")
	f.machine.Agent.OnCall(func(call guesttest.Call) error {
		if call.Method == "Processes" {
			return errdefs.ErrNotImplemented
		}
		return nil
	})
	spec := &specs.Spec{
		Process: &specs.Process{Args: []string{"c"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", pod.PID())},
		}},
	}
	if _, err := f.Create(t.Context(), sandbox.CreateRequest{ID: "c", Bundle: f.bundleOf("c", spec)}); err != nil {
		t.Error(err)
	}
}
