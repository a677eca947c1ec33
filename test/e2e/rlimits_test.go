//go:build e2e

package e2e_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// limitsOfGuest are what processes have in a container whose specification says
// nothing of them: all 16 that the kernel has. Those of runc are containerd's own.
var limitsOfGuest = map[string]string{
	"Max cpu time": "unlimited unlimited", "Max file size": "unlimited unlimited", "Max data size": "unlimited unlimited",
	"Max stack size": "8388608 unlimited", "Max core file size": "0 unlimited", "Max resident set": "unlimited unlimited",
	"Max processes": "unlimited unlimited", "Max open files": "1024 524288", "Max locked memory": "8388608 8388608",
	"Max address space": "unlimited unlimited", "Max file locks": "unlimited unlimited", "Max pending signals": "unlimited unlimited",
	"Max msgqueue size": "819200 819200", "Max nice priority": "0 0", "Max realtime priority": "0 0", "Max realtime timeout": "unlimited unlimited",
}

// withRlimits replaces the limits of a specification.
func withRlimits(limits ...specs.POSIXRlimit) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Rlimits = limits
		return nil
	}
}

// limitLine is a line of /proc/PID/limits, whose first column has 25 characters.
var limitLine = regexp.MustCompile(`(?m)^(Max .{21}) *(\S+) +(\S+)`)

// limitsIn reads the limits of a process, from an exec in its container.
func limitsIn(t *testing.T, runtime, id string, opts ...oci.SpecOpts) (init, exec map[string]string) {
	t.Helper()
	task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, opts...)
	read := func(process string) map[string]string {
		out, status := shared.Output(t, task, id+process, "cat", "/proc/"+process+"/limits")
		if status != 0 {
			t.Fatalf("limits of %s: status %d", process, status)
		}
		limits := make(map[string]string)
		for _, m := range limitLine.FindAllStringSubmatch(out, -1) {
			limits[strings.TrimSpace(m[1])] = m[2] + " " + m[3]
		}
		return limits
	}
	init, exec = read("1"), read("self")
	shared.KillTask(t, task)
	return init, exec
}

// TestLimitsOfProcesses: the limits do not come from the size of the guest, and
// what a specification says of one counts.
func TestLimitsOfProcesses(t *testing.T) {
	shared.Watch(t)
	runc, _ := limitsIn(t, harness.Runc, "limits-runc", withRlimits())
	init, exec := limitsIn(t, harness.Runtime, "limits", withRlimits())
	for name, want := range limitsOfGuest {
		if init[name] != want || exec[name] != want {
			t.Errorf("%s: init %q, exec %q, want %q", name, init[name], exec[name], want)
		}
		if runc[name] != want {
			t.Logf("%s: %q, and with runc here %q", name, want, runc[name])
		}
	}
	if len(runc) != len(limitsOfGuest) {
		t.Errorf("%d limits with runc, want %d", len(runc), len(limitsOfGuest))
	}
}

// TestLimitsOfASpecification are those of runc, too.
func TestLimitsOfASpecification(t *testing.T) {
	shared.Watch(t)
	own := withRlimits(
		specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: 100, Hard: 200},
		specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 300, Hard: 400},
		specs.POSIXRlimit{Type: "RLIMIT_SIGPENDING", Soft: 500, Hard: 600},
	)
	for runtime, id := range map[string]string{harness.Runtime: "limits-own", harness.Runc: "limits-own-runc"} {
		init, exec := limitsIn(t, runtime, id, own)
		for name, want := range map[string]string{"Max processes": "100 200", "Max open files": "300 400", "Max pending signals": "500 600"} {
			if init[name] != want || exec[name] != want {
				t.Errorf("%s, %s: init %q, exec %q, want %q", strings.TrimPrefix(runtime, "io.containerd."), name, init[name], exec[name], want)
			}
		}
	}
}
