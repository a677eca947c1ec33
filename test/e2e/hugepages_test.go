//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// withHugePages limits a container's huge pages, as a kubelet does: for each
// page size of the host.
func withHugePages(limits ...specs.LinuxHugepageLimit) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.Resources.HugepageLimits = limits
		return nil
	}
}

func TestHugePages(t *testing.T) {
	shared.Watch(t)
	const mib = 1 << 20
	volume := t.TempDir()
	if err := unix.Mount("none", volume, "hugetlbfs", 0, "pagesize=2M"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(volume, 0); err != nil {
			t.Error(err)
		}
	})
	none := specs.LinuxHugepageLimit{Pagesize: "1GB"} // too large for a page of this VM
	task := shared.Running(t, "huge", harness.Streams{}, []string{"sleep", "1000"},
		withHugePages(specs.LinuxHugepageLimit{Pagesize: "2MB", Limit: 8 * mib}, none),
		oci.WithMounts([]specs.Mount{
			{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"ro"}},
			{Type: "bind", Source: volume, Destination: "/huge", Options: []string{"rbind", "rw"}},
		}))
	out, status := shared.Output(t, task, "look", "sh", "-c", "cat /sys/fs/cgroup/hugetlb.2MB.max; grep HugePages_Total /proc/meminfo; stat -f -c %t,%s /huge")
	if status != 0 || strings.Join(strings.Fields(out), " ") != "8388608 HugePages_Total: 4 958458f6,2097152" {
		t.Errorf("status %d, output %q", status, out)
	}
	shared.KillTask(t, task)
	for size, want := range map[string]string{"2MB": "io.ccv2.vm.memory_mib", "2TB": "2TB"} {
		container := shared.Container(t, "huge-"+size, []string{"true"}, withHugePages(specs.LinuxHugepageLimit{Pagesize: size, Limit: 4096 * mib}))
		if _, err := shared.NewTask(t, container, harness.Streams{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("4 GiB of %s: error %v, want one with %s", size, err, want)
		}
	}
}

// TestHugePagesReleased wants a pod's containers to follow each other on the
// same huge pages, and a changed limit to change what is reserved.
func TestHugePagesReleased(t *testing.T) {
	shared.Watch(t)
	const mib = 1 << 20
	inPod := oci.WithAnnotations(map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "huge-pod",
	})
	pod := shared.Running(t, "huge-pod", harness.Streams{}, []string{"sleep", "1000"})
	limit := func(size uint64) []specs.LinuxHugepageLimit {
		// A kubelet names every size of its host, also those that the guest does not have.
		return []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: size}, {Pagesize: "64KB"}}
	}
	probes := 0
	want := func(pages string) {
		t.Helper()
		probes++
		out, _ := shared.Output(t, pod, fmt.Sprintf("look%d", probes), "grep", "HugePages_Total", "/proc/meminfo")
		if got := strings.TrimSpace(strings.TrimPrefix(out, "HugePages_Total:")); got != pages {
			t.Errorf("%s huge pages are reserved, want %s", got, pages)
		}
	}
	for _, id := range []string{"huge-first", "huge-second"} {
		task := shared.Running(t, id, harness.Streams{}, []string{"sleep", "1000"}, inPod, withHugePages(limit(8*mib)...))
		want("4")
		for _, step := range []struct {
			size  uint64
			pages string
		}{{16 * mib, "8"}, {4 * mib, "2"}} {
			if err := task.Update(shared.Context(), client.WithResources(&specs.LinuxResources{HugepageLimits: limit(step.size)})); err != nil {
				t.Error(err)
			}
			want(step.pages)
		}
		shared.KillTask(t, task)
		want("0")
	}
	shared.KillTask(t, pod)
}
