//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// hostMemory is the default of [vm] host_memory_mib.
const hostMemory = 512

// limits makes a container with limits, in a group of a client's choice.
func limits(cgroupsPath string) oci.SpecOpts {
	quota, period := int64(50000), uint64(100000)
	all := []oci.SpecOpts{
		oci.WithMemoryLimit(256 << 20), oci.WithCPUCFS(quota, period), oci.WithCPUs("0"),
		oci.WithMounts([]specs.Mount{{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"ro"}}}),
	}
	if cgroupsPath != "" {
		all = append(all, oci.WithCgroup(cgroupsPath))
	}
	return oci.Compose(all...)
}

// TestCgroup: the host bounds and counts all that runs for a container that is no
// pod's, whatever form its client names the cgroup in, and nothing of it is left.
func TestCgroup(t *testing.T) {
	shared.NoSpares(t) // what those have used is charged elsewhere, and who makes the next one is the shim's child
	for name, path := range map[string]string{
		"the usual one": "", "of Docker and nerdctl with systemd": "system.slice:" + shared.Namespace + ":scope",
		"of Docker without": "/" + shared.Namespace + "/docker",
	} {
		t.Run(name, func(t *testing.T) {
			shared.Watch(t)
			task := shared.Running(t, "bounded", harness.Streams{}, []string{"sleep", "1000"}, limits(path))
			group := shared.GroupOf(t, "bounded")
			t.Log("the group is", group)
			for limit, want := range map[string]string{
				"memory": fmt.Sprint((256 + 96 + hostMemory) << 20), // the limit, the guest's own, the programs
				"quota":  "60000",                                   // and a tenth of a processor
				"cpus":   "0",
				"pids":   "1025",
			} {
				if got := group.Limit(t, limit); got != want {
					t.Errorf("%s: %s, want %s", limit, got, want)
				}
			}
			if used, err := strconv.Atoi(group.Limit(t, "usage")); err != nil || used < 50<<20 {
				t.Errorf("the group uses %d bytes, %v, less than the guest's kernel", used, err)
			}
			quota, period := int64(150000), uint64(100000)
			update := client.WithResources(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}})
			if err := task.Update(shared.Context(), update); err != nil {
				t.Error(err)
			}
			if got := group.Limit(t, "quota"); got != "160000" {
				t.Errorf("quota after an update: %s", got)
			}
			if out, _ := shared.Output(t, task, "look", "cat", "/sys/fs/cgroup/cpu.max"); out != "150000 100000\n" {
				t.Errorf("quota in the guest: %s", out)
			}
			survivesReload(t, "bounded", group)
			if status := shared.KillTask(t, task); status != 137 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// survivesReload: systemd takes from a scope that it does not know, when it reads
// its configuration anew.
func survivesReload(t *testing.T, id string, group harness.Group) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return // it does not run here
	}
	memory, quota := group.Limit(t, "memory"), group.Limit(t, "quota")
	harness.Systemctl(t, "daemon-reload")
	if got := shared.GroupOf(t, id); got != group {
		t.Errorf("after daemon-reload the group is %s, it was %s", got, group)
	}
	if group.Limit(t, "memory") != memory || group.Limit(t, "quota") != quota {
		t.Errorf("after daemon-reload the limits are %s and %s, they were %s and %s",
			group.Limit(t, "memory"), group.Limit(t, "quota"), memory, quota)
	}
}

// TestHostOutOfMemory: a VM that costs more than it may is ended by the host, and
// the error says so.
func TestHostOutOfMemory(t *testing.T) {
	shared.Watch(t)
	parent := harness.Group("/" + shared.Namespace)
	parent.LimitMemory(t, 80<<20)
	wantFailure(t, shared.Ctr(t, "run", "--rm", "--cgroup", string(parent)+"/dear", harness.ImageName, "dear", "true"),
		[]string{"boot sandbox", "out of memory", "host_memory_mib"})
}

// TestCgroupRefused: what the host cannot do is said before anything runs.
func TestCgroupRefused(t *testing.T) {
	shared.Watch(t)
	wantFailure(t, shared.Ctr(t, "run", "--rm", "--cpuset-cpus", "0-100000", harness.ImageName, "many", "true"),
		[]string{"limit cgroup"})
	wantFailure(t, shared.Ctr(t, "run", "--rm", "--cgroup", "a:b", harness.ImageName, "odd", "true"),
		[]string{`"a:b"`, "slice:prefix:name"})
}

// TestCpuset: a cpuset of processors that the VM has is the container's, as with runc,
// also after an update; another one is the host's, and binds the VM's threads alone.
func TestCpuset(t *testing.T) {
	shared.Watch(t)
	const allowed = "sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status"
	for _, test := range []struct{ name, cpus, cpuset, want string }{
		{"the guest's", "2", "1", "1\n"},
		{"the host's", "1", "1", "0\n"},
	} {
		got := shared.Ctr(t, "run", "--rm", "--cpus", test.cpus, "--cpuset-cpus", test.cpuset, harness.ImageName, "cpuset", "/bin/sh", "-c", allowed)
		if got.Stdout != test.want {
			t.Errorf("%s: %+v, want %q", test.name, got, test.want)
		}
	}
}

// TestShimCgroup: a client that asks for it has the shim in a group that it has made,
// which is charged for nothing of the container's, as with runc.
func TestShimCgroup(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		own := harness.MakeGroup(t, shared.Namespace+"shims")
		container := shared.ContainerOn(t, runtime, id, []string{"sleep", "1000"})
		task, err := shared.NewTask(t, container, harness.Streams{}, client.WithShimCgroup(string(own)))
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Start(shared.Context()); err != nil {
			t.Fatal(err)
		}
		exec := shared.Exec(t, task, "more", harness.Streams{}, "sleep", "1000")
		for hierarchy, programs := range own.Programs(t) {
			if hierarchy == "devices" { // which the VM's processes have no group in
				continue
			}
			if len(programs) != 1 || !strings.HasPrefix(programs[0], "containerd-shim") {
				t.Errorf("%s: in the shim's group are %q, want the shim alone", hierarchy, programs)
			}
		}
		if err := exec.Kill(shared.Context(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if status := shared.Finish(t, exec); status != 137 {
			t.Errorf("status of the exec %d", status)
		}
		if status := shared.KillTask(t, task); status != 137 {
			t.Errorf("status %d", status)
		}
	})
}

// TestShimCgroupMissing: nothing runs when there is no such group.
func TestShimCgroupMissing(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		container := shared.ContainerOn(t, runtime, id, []string{"true"})
		none := "/" + shared.Namespace + "-none"
		if _, err := shared.NewTask(t, container, harness.Streams{}, client.WithShimCgroup(none)); err == nil || !strings.Contains(err.Error(), none) {
			t.Errorf("error %v", err)
		}
	})
}
