package hostcgroup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestPath(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"/kubepods/burstable/podx/abc", "/kubepods/burstable/podx/abc"},
		{"default/abc", "/default/abc"},
		{"/a/../../b", "/b"},
		{"kubelet-kubepods-pod1_2.slice:cri-containerd:abc", "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1_2.slice/cri-containerd-abc.scope"},
		{"system.slice:nerdctl:abc", "/system.slice/nerdctl-abc.scope"},
		{"system.slice::abc", "/system.slice/-abc.scope"},
		{":docker:abc", "/system.slice/docker-abc.scope"},
		{"-.slice:docker:abc", "/docker-abc.scope"},
	} {
		_, got, err := parse(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("parse(%q) = %q, %v, want %q", tc.in, got, err, tc.want)
		}
	}
	for _, in := range []string{"", "/", "a:b", "a:b:c", "a.slice:b:", "a.slice:b:../c", "a--b.slice:c:d", "a.slice:b:system.slice"} {
		if _, got, err := parse(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("parse(%q) = %q, %v, want an invalid argument", in, got, err)
		}
	}
}

// open opens the group of a path of this test, which must be gone in the end.
func open(t *testing.T, name string) *Group {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	g, err := Open(fmt.Sprintf("/ccv2-test-%s-%d", name, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	possible := maps.Clone(g.manager.GetPaths())
	t.Cleanup(func() {
		for range 2 { // doing it again is not an error
			if err := g.Remove(context.Background()); err != nil {
				t.Error(err)
			}
		}
		for _, dir := range possible {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is still there", dir)
			}
		}
	})
	return g
}

// startTwo starts a process that starts another one. Both live until the test
// calls end.
func startTwo(t *testing.T) (pids []int, end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec 3<&0; cat <&3 & echo $!; wait")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	var child int
	if _, err := fmt.Fscan(stdout, &child); err != nil {
		end()
		t.Fatal(err)
	}
	return []int{cmd.Process.Pid, child}, end
}

// has reports whether a process is in the group, in one hierarchy.
func (g *Group) has(t *testing.T, controller string, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.manager.Path(controller), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(strings.Fields(string(b)), strconv.Itoa(pid))
}

// TestEnter: what is started after Enter is in the group, EnterAll brings it into
// all hierarchies, also a child of a child, and Leave takes this process alone out.
func TestEnter(t *testing.T) {
	g := open(t, "enter")
	if err := g.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	started, end := startTwo(t)
	defer end()
	for controller := range g.dirs() {
		for _, pid := range started {
			if late := g.limitsTime(controller); g.has(t, controller, pid) == late {
				t.Errorf("%q: process %d, late %v, is in the wrong group", controller, pid, late)
			}
		}
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("oom kills: %d, %v", n, err)
	}
	if err := errors.Join(g.EnterAll(), g.Leave()); err != nil {
		t.Fatal(err)
	}
	for controller := range g.dirs() {
		for _, pid := range started {
			if !g.has(t, controller, pid) {
				t.Errorf("%q: process %d is not in the group", controller, pid)
			}
		}
		if g.has(t, controller, os.Getpid()) {
			t.Errorf("%q: this process is still in the group", controller)
		}
	}
}

// TestLeave: where this process was may be gone, as the group of a service is that
// was stopped.
func TestLeave(t *testing.T) {
	home := open(t, "home")
	g := open(t, "leave")
	if err := home.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := home.EnterAll(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Enter(t.Context()), g.EnterAll()); err != nil {
		t.Fatal(err)
	}
	if err := home.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Leave(); err != nil {
		t.Error(err)
	}
	for controller := range g.dirs() {
		if g.has(t, controller, os.Getpid()) {
			t.Errorf("%q: this process is still in the group", controller)
		}
	}
}

// TestLimit: a limit that the kernel refuses is said, with the group.
func TestLimit(t *testing.T) {
	g := open(t, "limit")
	if err := errors.Join(g.Enter(t.Context()), g.Leave()); err != nil {
		t.Fatal(err)
	}
	err := g.Limit(t.Context(), Limits{CPU: &specs.LinuxCPU{Cpus: "0-100000"}})
	if err == nil || !strings.Contains(err.Error(), "limit cgroup "+g.Path()) {
		t.Errorf("processors that do not exist: %v", err)
	}
	if !g.Has("memory") || g.Has("time") {
		t.Errorf("controllers: memory %v, time %v", g.Has("memory"), g.Has("time"))
	}
	if err := g.Limit(t.Context(), Limits{}); err != nil { // changes nothing
		t.Error(err)
	}
}

// TestMemoryLimit is that of the groups above, too.
func TestMemoryLimit(t *testing.T) {
	parent := open(t, "parent")
	g, err := Open(parent.Path() + "/child")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(g.EnterAll(), g.Leave(), g.Remove(context.Background())); err != nil {
			t.Error(err)
		}
	}()
	if limit, err := g.MemoryLimit(); err != nil || limit <= 1<<30 {
		t.Errorf("without a limit: %d, %v", limit, err)
	}
	for _, tt := range []struct {
		group *Group
		limit int
	}{{parent, 1 << 30}, {g, 512 << 20}} {
		if err := tt.group.Limit(t.Context(), Limits{Memory: int64(tt.limit)}); err != nil {
			t.Fatal(err)
		}
		if limit, err := g.MemoryLimit(); err != nil || limit != tt.limit {
			t.Errorf("got %d, %v, want %d", limit, err, tt.limit)
		}
	}
}

// TestFreeThreads are bounded by the groups above, too.
func TestFreeThreads(t *testing.T) {
	parent := open(t, "parent")
	g, err := Open(parent.Path() + "/child")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(g.EnterAll(), g.Leave(), g.Remove(context.Background())); err != nil {
			t.Error(err)
		}
	}()
	if free, limited, err := g.FreeThreads(); err != nil || (limited && free < 1000) {
		t.Errorf("without a limit: %d, %v, %v", free, limited, err)
	}
	if err := parent.Limit(t.Context(), Limits{Threads: 500}); err != nil {
		t.Fatal(err)
	}
	if free, limited, err := g.FreeThreads(); err != nil || !limited || free >= 500 || free < 400 {
		t.Errorf("with 500 above: %d, %v, %v", free, limited, err)
	}
	if err := g.Limit(t.Context(), Limits{Threads: 50}); err != nil {
		t.Fatal(err)
	}
	if free, _, err := g.FreeThreads(); err != nil || free >= 50 {
		t.Errorf("with 50: %d, %v", free, err)
	}
}

// TestRemoveEmpty: a group that others are in stays, and so do they, though they have
// no processes in some hierarchy.
func TestRemoveEmpty(t *testing.T) {
	parent := open(t, "parent")
	g, err := Open(parent.Path() + "/child")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Enter(t.Context()); err != nil { // not in those that limit time
		t.Fatal(err)
	}
	dirs := g.dirs()
	parent.RemoveEmpty()
	if len(g.dirs()) != len(dirs) {
		t.Errorf("of %d directories %d are left", len(dirs), len(g.dirs()))
	}
	if pids, err := parent.Processes(); err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("below the parent: %v, %v", pids, err)
	}
	if err := errors.Join(g.EnterAll(), g.Leave(), g.Remove(t.Context())); err != nil {
		t.Error(err)
	}
	parent.RemoveEmpty()
	if left := parent.dirs(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestEnterAllMissing: a hierarchy that somebody has taken the group from is an error,
// not a group without limits.
func TestEnterAllMissing(t *testing.T) {
	g := open(t, "missing")
	if err := g.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range g.dirs() {
		_ = unix.Rmdir(dir) // where this process is not
	}
	err := g.EnterAll()
	if cgroups.IsCgroup2UnifiedMode() == (err != nil) {
		t.Errorf("a group that is gone in a part: %v", err)
	}
	if err := g.Leave(); err != nil {
		t.Error(err)
	}
}

// TestJoin: a process is moved into all of a group, and a group is not made.
func TestJoin(t *testing.T) {
	g := open(t, "join")
	started, end := startTwo(t)
	defer end()
	if err := Join(g.Path(), started[0]); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no group: %v", err)
	}
	if err := errors.Join(g.Enter(t.Context()), g.Leave()); err != nil {
		t.Fatal(err)
	}
	if err := Join(g.Path(), started[0]); err != nil {
		t.Fatal(err)
	}
	for controller := range g.dirs() {
		if !g.has(t, controller, started[0]) || g.has(t, controller, started[1]) {
			t.Errorf("%q: in the group: %v and %v", controller, g.has(t, controller, started[0]), g.has(t, controller, started[1]))
		}
	}
	end()
}
