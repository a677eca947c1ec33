package podvm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
)

// limitFiles has where a limit is read, in v1 and in the unified hierarchy.
var limitFiles = map[string][2]string{
	"memory": {"memory/%s/memory.limit_in_bytes", "%s/memory.max"},
	"pids":   {"pids/%s/pids.max", "%s/pids.max"},
	"quota":  {"cpu/%s/cpu.cfs_quota_us", "%s/cpu.max"},
	"weight": {"cpu/%s/cpu.shares", "%s/cpu.weight"},
}

// limitOf is what the kernel says of a limit of a group.
func limitOf(t *testing.T, path, limit string) string {
	t.Helper()
	which := 0
	if cgroups.IsCgroup2UnifiedMode() {
		which = 1
	}
	b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", fmt.Sprintf(limitFiles[limit][which], path)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))[0]
}

// newGroup is the cgroupsPath of a test.
func newGroup(t *testing.T) string {
	t.Helper()
	path := fmt.Sprintf("ccv2-test-podvm-%d", os.Getpid())
	t.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*/" + path) // the pattern is well-formed
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", path)); err == nil || len(left) > 0 {
			t.Errorf("the cgroup %s is still there: %v", path, left)
		}
	})
	return "/" + path
}

// TestCgroupOfOthers: its processes would be killed with the sandbox.
func TestCgroupOfOthers(t *testing.T) {
	path := newGroup(t)
	f := newFixture(t)
	others, err := hostcgroup.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := others.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = f.boot(bundle.Pod{CgroupsPath: path})
	if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "has 1 processes already") {
		t.Errorf("a cgroup with processes was taken: %v", err)
	}
	if err := errors.Join(others.Leave(), others.Remove(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestLimits: the cgroup of a container that is no pod's has what the VM may cost,
// and the processor's part of it can be changed.
func TestLimits(t *testing.T) {
	path := newGroup(t)
	f := newFixture(t)
	f.with(func(o *Options) {
		o.Config.Spec.CPUs, o.Config.Spec.MemoryMiB, o.Config.HostMemoryMiB = 2, 512, 100
	})
	quota, period, shares := int64(50000), uint64(100000), uint64(512)
	pod := bundle.Pod{CgroupsPath: path, Limits: &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
	}}
	if err := f.boot(pod); err != nil {
		t.Fatal(err)
	}
	want := func(limit, want string) {
		t.Helper()
		if got := limitOf(t, path, limit); got != want {
			t.Errorf("%s: %s, want %s", limit, got, want)
		}
	}
	want("memory", fmt.Sprint(612<<20))
	want("pids", "1026")
	want("quota", "60000") // and a tenth of a processor
	if limitOf(t, path, "weight") == limitOf(t, "", "weight") && !cgroups.IsCgroup2UnifiedMode() {
		t.Error("the shares of the group are the default")
	}
	quota = 70000
	if err := f.LimitCPU(t.Context(), &specs.LinuxCPU{Quota: &quota}); err != nil {
		t.Error(err)
	}
	want("quota", "80000")
	period = 50000
	if err := f.LimitCPU(t.Context(), &specs.LinuxCPU{Period: &period}); err != nil {
		t.Error(err)
	}
	want("quota", "75000") // the same quota of another period, and a tenth
	quota = -1
	if err := f.LimitCPU(t.Context(), &specs.LinuxCPU{Quota: &quota}); err != nil {
		t.Error(err)
	}
	if got := limitOf(t, path, "quota"); got != "-1" && got != "max" {
		t.Errorf("quota: %s after it was removed", got)
	}
	want("memory", fmt.Sprint(612<<20)) // is not touched by that
}

// TestNoLimits: a pod's cgroup is bounded by who has made it, and
// [vm] host_memory_mib 0 is no limit.
func TestNoLimits(t *testing.T) {
	for name, pod := range map[string]bundle.Pod{"pod": {}, "host_memory_mib": {Limits: &specs.LinuxResources{}}} {
		t.Run(name, func(t *testing.T) {
			pod.CgroupsPath = newGroup(t)
			f := newFixture(t)
			f.with(func(o *Options) {
				o.Config.Spec.MemoryMiB = 512
				if name == "pod" {
					o.Config.HostMemoryMiB = 100
				}
			})
			if err := f.boot(pod); err != nil {
				t.Fatal(err)
			}
			quota := int64(70000)
			if err := f.LimitCPU(t.Context(), &specs.LinuxCPU{Quota: &quota}); err != nil {
				t.Error(err)
			}
			if got := limitOf(t, pod.CgroupsPath, "memory"); got != "max" && len(got) < len("9223372036854771712") {
				t.Errorf("memory is limited to %s", got)
			}
			if got := limitOf(t, pod.CgroupsPath, "quota"); name == "pod" && got != "-1" && got != "max" {
				t.Errorf("processor time of a pod is limited to %s", got)
			}
		})
	}
}

// TestLimitBelowALimit: with v1 a group has no more of the processors than the one above
// it, so what the helpers need is left out.
func TestLimitBelowALimit(t *testing.T) {
	path := newGroup(t)
	f := newFixture(t)
	parent, err := hostcgroup.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	quota, period := int64(100000), uint64(100000)
	cpu := &specs.LinuxCPU{Quota: &quota, Period: &period}
	if err := errors.Join(parent.Enter(t.Context()), parent.Leave(), parent.Limit(t.Context(), hostcgroup.Limits{CPU: cpu})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(parent.RemoveEmpty)
	if err := f.boot(bundle.Pod{CgroupsPath: path + "/child", Limits: &specs.LinuxResources{CPU: cpu}}); err != nil {
		t.Fatal(err)
	}
	if got := limitOf(t, path+"/child", "quota"); got != "100000" && !cgroups.IsCgroup2UnifiedMode() {
		t.Errorf("quota: %s", got)
	}
	if err := errors.Join(f.Release(t.Context())); err != nil {
		t.Error(err)
	}
}
