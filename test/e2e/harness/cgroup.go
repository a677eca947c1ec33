//go:build e2e

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// systemd says that groups are made as a client with the systemd driver asks for
// them: slices for pods, scopes for containers.
var systemd = os.Getenv("CCV2_CGROUPS") == "systemd"

// cgroupRoot is where the host has its cgroups.
const cgroupRoot = "/sys/fs/cgroup"

// Group is a cgroup of the host.
type Group string

// limitFiles has where a limit is read: the hierarchy and the file of v1, the file
// of the unified hierarchy.
var limitFiles = map[string][3]string{
	"memory": {"memory", "memory.limit_in_bytes", "memory.max"},
	"usage":  {"memory", "memory.usage_in_bytes", "memory.current"},
	"pids":   {"pids", "pids.max", "pids.max"},
	"quota":  {"cpu", "cpu.cfs_quota_us", "cpu.max"},
	"cpus":   {"cpuset", "cpuset.cpus", "cpuset.cpus"},
}

// Limit is what the kernel says: "memory" and "usage" in bytes, "pids", "quota" in
// microseconds of a period, "cpus".
func (g Group) Limit(tb testing.TB, what string) string {
	tb.Helper()
	files := limitFiles[what]
	path := filepath.Join(cgroupRoot, files[0], string(g), files[1])
	if unified() {
		path = filepath.Join(cgroupRoot, string(g), files[2])
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Fields(string(b))[0]
}

// GroupOf is the group that the shim of a sandbox is in. All that the shim has
// started, and all that this has started, must be in it, in each hierarchy that
// limits it.
func (h *Host) GroupOf(tb testing.TB, sandbox string) Group {
	tb.Helper()
	shim := h.Find(Shim, sandbox)
	if len(shim) != 1 {
		tb.Fatalf("shims of %s: %v", sandbox, shim)
	}
	group := groupOf(tb, shim[0], "memory")
	members := map[int]bool{shim[0].PID: true} // and all that they have started
	count := map[string]int{}
	for _, p := range h.Processes() { // parents before children
		if !members[p.PID] && !members[parentOf(tb, p)] {
			continue
		}
		members[p.PID] = true
		count[p.Name]++
		for _, controller := range []string{"memory", "cpu", "cpuset", "pids"} {
			if got := groupOf(tb, p, controller); got != group {
				tb.Errorf("%s: %s is in %s, its shim in %s", controller, p, got, group)
			}
		}
	}
	if len(count) != 3 || count["virtiofsd"] < 2 { // it forks
		tb.Errorf("processes of the sandbox: %v, want the shim, QEMU and two of virtiofsd", count)
	}
	return group
}

// parentOf is the pid of a process's parent.
func parentOf(tb testing.TB, p Process) int {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nPPid:\t")
	pid, err := strconv.Atoi(strings.SplitN(rest, "\n", 2)[0])
	if err != nil {
		tb.Fatal(err)
	}
	return pid
}

// groupOf is a process's group in the hierarchy of a controller, or in the unified
// one.
func groupOf(tb testing.TB, p Process, controller string) Group {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	if err != nil {
		tb.Fatal(err)
	}
	unified := ""
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case slices.Contains(strings.Split(parts[1], ","), controller):
			return Group(parts[2])
		case parts[1] == "":
			unified = parts[2]
		}
	}
	return Group(unified)
}

// cgroupFlag makes ctr name the group of a container as a client with the systemd
// driver does.
func (c *Containerd) cgroupFlag() []string {
	if !systemd {
		return nil
	}
	c.scopes++
	return []string{"--cgroup", fmt.Sprintf("system.slice:%s:%d", c.Namespace, c.scopes)}
}

// podGroup is the name of a pod's cgroup; "*" stands for any pod.
func (h *Host) podGroup(pod string) string {
	name := filepath.Base(h.Dir) + "-" + pod
	if systemd { // a slice stands in another one for each "-"
		return strings.ReplaceAll(name, "-", "_") + ".slice"
	}
	return name
}

// makeSlice does the kubelet's part: the pod's own group, which with the other
// driver is made by who comes first.
func (p *Pod) makeSlice(tb testing.TB) {
	tb.Helper()
	if systemd {
		Systemctl(tb, "start", filepath.Base(p.Config.Linux.CgroupParent))
	}
}

// removeCgroups does the kubelet's part: the pod's own group.
func (p *Pod) removeCgroups(tb testing.TB) {
	tb.Helper()
	if systemd {
		Systemctl(tb, "stop", filepath.Base(p.Config.Linux.CgroupParent))
	}
	for _, dir := range globCgroups(p.Config.Linux.CgroupParent) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			tb.Errorf("the pod's cgroup: %v", err)
		}
	}
}

// Systemctl runs systemctl, which must succeed.
func Systemctl(tb testing.TB, args ...string) {
	tb.Helper()
	if out, err := exec.CommandContext(context.Background(), "systemctl", args...).CombinedOutput(); err != nil {
		tb.Errorf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// units lists what systemd knows of the Host, but for the slices of pods, which are
// the kubelet's.
func (h *Host) units() []string {
	if !systemd {
		return nil
	}
	base := filepath.Base(h.Dir)
	out, err := exec.CommandContext(context.Background(), "systemctl", "list-units", "--all", "--plain", "--no-legend",
		"cri-containerd-*.scope", base+"*").Output()
	if err != nil {
		return []string{fmt.Sprintf("units: %v", err)}
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		found = append(found, "unit "+strings.TrimSpace(line))
	}
	return found
}

// cgroups lists control groups below those of the Host's namespace or pods, which
// no runtime removes.
func (h *Host) cgroups() []string {
	var found []string
	for _, dir := range h.parentCgroups() {
		matches, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs")) // the pattern is well-formed
		for _, path := range matches {
			found = append(found, "cgroup "+filepath.Dir(path))
		}
	}
	for _, dir := range globCgroups(filepath.Join("system.slice", filepath.Base(h.Dir)+"-*")) {
		found = append(found, "cgroup "+dir)
	}
	return found
}

// parentCgroups are the groups of the Host's namespace, or of its pods, in all
// hierarchies.
func (h *Host) parentCgroups() []string { return globCgroups(h.groups) }

// globCgroups finds groups in all hierarchies.
func globCgroups(pattern string) []string {
	v2, _ := filepath.Glob(filepath.Join(cgroupRoot, pattern)) // the pattern is well-formed
	v1, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", pattern))
	return append(v2, v1...)
}

// LimitMemory does what a kubelet does for a pod with limits, before the pod runs.
func (p *Pod) LimitMemory(tb testing.TB, bytes int64) {
	tb.Helper()
	parent := p.Config.Linux.CgroupParent
	if systemd {
		Systemctl(tb, "set-property", "--runtime", filepath.Base(parent), fmt.Sprintf("MemoryMax=%d", bytes))
		return
	}
	Group(parent).LimitMemory(tb, bytes)
}

// LimitMemory makes the group, which must stand at the top, and bounds what is below
// it.
func (g Group) LimitMemory(tb testing.TB, bytes int64) {
	tb.Helper()
	dir, file := filepath.Join(cgroupRoot, "memory", string(g)), limitFiles["memory"][1]
	if unified() {
		dir, file = filepath.Join(cgroupRoot, string(g)), limitFiles["memory"][2]
		if err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(bytes, 10)), 0); err != nil {
		tb.Fatal(err)
	}
}

// MakeGroup makes a group at the top of all hierarchies, for the test.
func MakeGroup(tb testing.TB, name string) Group {
	tb.Helper()
	procs, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs")) // the pattern is well-formed
	if unified() {
		procs = []string{filepath.Join(cgroupRoot, "cgroup.procs")}
	}
	for _, path := range procs {
		dir := filepath.Join(filepath.Dir(path), name)
		if strings.HasPrefix(dir, filepath.Join(cgroupRoot, "unified")) {
			continue // beside v1 it has no controllers
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // cpu and cpuacct are one
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				tb.Error(err)
			}
		})
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1: nobody can enter without
			if all, err := os.ReadFile(filepath.Join(filepath.Dir(path), file)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, file), all, 0); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
	return Group("/" + name)
}

// Programs are what runs in the group, by hierarchy; "" is the unified one.
func (g Group) Programs(tb testing.TB) map[string][]string {
	tb.Helper()
	programs := map[string][]string{}
	for _, dir := range globCgroups(string(g)) {
		pids, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			tb.Fatal(err)
		}
		hierarchy := strings.Trim(strings.TrimSuffix(strings.TrimPrefix(dir, cgroupRoot), string(g)), "/")
		programs[hierarchy] = []string{}
		for pid := range strings.FieldsSeq(string(pids)) {
			name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			if err != nil {
				tb.Error(err)
			}
			programs[hierarchy] = append(programs[hierarchy], strings.TrimSpace(string(name)))
		}
	}
	return programs
}

// unified reports whether the host has the unified hierarchy alone.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}
