package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// TestPID looks at what represents the containers of a pod on the host.
func TestPID(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	pod, one, two := f.create(podID, "a"), f.create("one", "b"), f.create("two", "c")
	if pod.PID() != f.driver.machine().PID() {
		t.Errorf("pid of the sandbox container: %d, want the VMM's", pod.PID())
	}
	if one.PID() == two.PID() || one.PID() == pod.PID() || one.PID() == os.Getpid() {
		t.Errorf("pids %d, %d and %d, want three", pod.PID(), one.PID(), two.PID())
	}
	for _, c := range []*Container{pod, one, two} {
		if b, err := bundle.LoadNote(c.Bundle); err != nil || b.PID != c.PID() {
			t.Errorf("container %s: pid %d in the bundle, want %d (%v)", c.ID, b.PID, c.PID(), err)
		}
	}
	joiner := &specs.Spec{Linux: &specs.Linux{}}
	for path, want := range map[string]string{
		fmt.Sprintf("/proc/%d/ns/pid", pod.PID()): podID,
		fmt.Sprintf("/proc/%d/ns/pid", two.PID()): "two",
		"/run/pidns/somewhere":                    podID,
	} {
		joiner.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"}, {Type: specs.PIDNamespace, Path: path}}
		if got, err := f.pidNamespaceOwner(joiner); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	joiner.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}}
	if got, err := f.pidNamespaceOwner(joiner); !errdefs.IsInvalidArgument(err) {
		t.Errorf("the host's pid namespace: got %q, %v", got, err)
	}
	placeholder := filepath.Join("/proc", fmt.Sprint(one.PID()))
	if _, err := one.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for { // the thread ends soon after
		if _, err := os.Stat(placeholder); errors.Is(err, os.ErrNotExist) {
			return
		}
		runtime.Gosched()
	}
}

// TestOutlived: the bundle says that others are left when the sandbox
// container is deleted.
func TestOutlived(t *testing.T) {
	for _, others := range []bool{false, true} {
		f := newFixture(t, hyperstart.DialectCCv2)
		pod := f.create(podID, "a")
		if others {
			f.create("other", "b")
		}
		if _, err := pod.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b, err := bundle.LoadNote(pod.Bundle); err != nil || b.Outlived != others {
			t.Errorf("others: %v, in the bundle: %v, %v", others, b.Outlived, err)
		}
	}
}
