package sandbox_test

import (
	"fmt"
	"slices"
	"strings"
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
			Process: &specs.Process{Args: []string{"c"}, Cwd: "/"},
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

// TestJoinOfNoPod: a container of no pod joins those that have the pids in the paths of
// its namespaces, and is refused when one of them is none of this VM.
func TestJoinOfNoPod(t *testing.T) {
	f := newFixture(t)
	pids := map[string]int{}
	for _, id := range []string{podID, "two"} {
		c, err := f.Create(t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundleOf(id, noPod())})
		if err != nil {
			t.Fatal(err)
		}
		pids[id] = c.PID()
	}
	for _, of := range []string{podID, "two"} {
		all := []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/ns/net", pids[of])}}
		var want []specs.LinuxNamespace
		owner, err := f.machine.Agent.Processes(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []specs.LinuxNamespaceType{"pid", "ipc", "uts"} {
			all = append(all, specs.LinuxNamespace{Type: kind, Path: fmt.Sprintf("/proc/%d/ns/%s", pids[of], kind)})
			want = append(want, specs.LinuxNamespace{Type: kind, Path: fmt.Sprintf("/proc/%d/ns/%s", owner[0].PID, kind)})
		}
		want = append(want, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		id := "with-" + of
		if _, err := f.Create(t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundleOf(id, noPod(all...))}); err != nil {
			t.Fatal(err)
		}
		if created, _ := f.machine.Agent.Created(id); !slices.Equal(created.Spec.Linux.Namespaces, want) {
			t.Errorf("%s: the guest got %+v, want %+v", id, created.Spec.Linux.Namespaces, want)
		}
	}
	for _, kind := range []specs.LinuxNamespaceType{"network", "pid", "ipc", "uts", "user"} {
		id := "foreign-" + string(kind)
		ns := specs.LinuxNamespace{Type: kind, Path: "/proc/self/ns/" + strings.TrimSuffix(string(kind), "work")}
		_, err := f.Create(t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundleOf(id, noPod(ns))})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), ns.Path) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// TestOwnNetwork: a client sets up the network of a container in the namespace of its
// pid. One that is in the VM of another for its pids must not have that one's.
func TestOwnNetwork(t *testing.T) {
	f := newFixture(t)
	network := specs.LinuxNamespace{Type: specs.NetworkNamespace}
	pod := noPod(network)
	pod.Annotations = nil
	for _, test := range []struct {
		id   string
		spec *specs.Spec
		want bool
	}{
		{podID, noPod(network), false},
		{"own", noPod(network), true},
		{"host", noPod(), false},
		{"of-a-pod", pod, false},
	} {
		c, err := f.Create(t.Context(), sandbox.CreateRequest{ID: test.id, Bundle: f.bundleOf(test.id, test.spec)})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.machine.OnHost()[c.PID()].NewNetwork; got != test.want {
			t.Errorf("%s: a namespace of its own: %v", test.id, got)
		}
	}
}

// noPod is the specification of a container of no pod.
func noPod(namespaces ...specs.LinuxNamespace) *specs.Spec {
	return &specs.Spec{
		Annotations: map[string]string{}, Process: &specs.Process{Args: []string{"c"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: namespaces},
	}
}

// TestForeignNamespaces: a VM is not booted for a container that asks for what is not
// in it.
func TestForeignNamespaces(t *testing.T) {
	const unused = 1 << 30 // more than any pid
	for _, test := range []struct {
		ns     specs.LinuxNamespace
		refuse func(error) bool
		says   string
	}{
		{specs.LinuxNamespace{Type: "pid", Path: "/proc/self/ns/pid"}, errdefs.IsInvalidArgument, "the pid namespace /proc/self/ns/pid is not that of a running container"},
		{specs.LinuxNamespace{Type: "ipc", Path: "/proc/self/ns/ipc"}, errdefs.IsInvalidArgument, "the ipc namespace"},
		{specs.LinuxNamespace{Type: "uts", Path: "/proc/self/ns/uts"}, errdefs.IsInvalidArgument, "the uts namespace"},
		{specs.LinuxNamespace{Type: "network", Path: fmt.Sprintf("/proc/%d/ns/net", unused)}, errdefs.IsNotFound, fmt.Sprintf("the container with pid %d has ended", unused)},
		{specs.LinuxNamespace{Type: "network", Path: "/proc/self/ns/net"}, nil, ""},
		{specs.LinuxNamespace{Type: "user", Path: "/proc/self/ns/user"}, nil, ""},
	} {
		f := newFixture(t)
		_, err := f.Create(t.Context(), sandbox.CreateRequest{ID: podID, Bundle: f.bundleOf(podID, noPod(test.ns))})
		switch {
		case test.refuse == nil && err != nil:
			t.Errorf("%+v: %v", test.ns, err)
		case test.refuse != nil && (!test.refuse(err) || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%+v: %v", test.ns, err)
		case test.refuse != nil && f.machine.PID() != 0:
			t.Errorf("%+v: the VM was booted", test.ns)
		}
	}
	f := newFixture(t)
	pod := &specs.Spec{Process: &specs.Process{Args: []string{"c"}, Cwd: "/"}, Linux: &specs.Linux{
		Namespaces: []specs.LinuxNamespace{{Type: "ipc", Path: "/proc/self/ns/ipc"}},
	}}
	if _, err := f.Create(t.Context(), sandbox.CreateRequest{ID: podID, Bundle: f.bundleOf(podID, pod)}); err != nil {
		t.Errorf("a pod whose namespaces are kept on the host: %v", err)
	}
}

// TestPauseOfTheJoined: a container of no pod is paused without those that have joined
// it, but with its VM when it is alone there; and is resumed as it was paused.
func TestPauseOfTheJoined(t *testing.T) {
	f := newFixture(t)
	started := func(id string) *sandbox.Container {
		c, err := f.Create(t.Context(), sandbox.CreateRequest{ID: id, Bundle: f.bundleOf(id, noPod())})
		if err == nil {
			err = c.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := started(podID)
	for _, alone := range []bool{true, false} {
		if !alone {
			started("joined")
		}
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.machine.Paused() != alone {
			t.Errorf("alone: %v; the VM is paused: %v", alone, f.machine.Paused())
		}
		if err := c.Resume(t.Context()); err != nil || f.machine.Paused() {
			t.Errorf("resumed: %v; the VM is paused: %v", err, f.machine.Paused())
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
		Process: &specs.Process{Args: []string{"c"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", pod.PID())},
		}},
	}
	if _, err := f.Create(t.Context(), sandbox.CreateRequest{ID: "c", Bundle: f.bundleOf("c", spec)}); err != nil {
		t.Error(err)
	}
}
