package hostcgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestPath(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"/kubepods/burstable/podx/abc", "/kubepods/burstable/podx/abc"},
		{"default/abc", "/default/abc"},
		{"/a/../../b", "/b"},
		{"kubelet-kubepods-pod1_2.slice:cri-containerd:abc", "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1_2.slice/cri-containerd-abc.scope"},
		{"system.slice:nerdctl:abc", "/system.slice/nerdctl-abc.scope"},
		{"system.slice::abc", "/system.slice/abc.scope"},
	} {
		got, err := Path(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("Path(%q) = %q, %v, want %q", tc.in, got, err, tc.want)
		}
	}
	for _, in := range []string{"", "/", "a:b", "a:b:c", "a.slice:b:", "a.slice:b:../c"} {
		if got, err := Path(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Path(%q) = %q, %v, want an invalid argument", in, got, err)
		}
	}
}

// TestGroup moves a real process through a real group.
func TestGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	path := fmt.Sprintf("/ccv2-test-%d/leaf", os.Getpid())
	g, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(g.Remove(), parent.Remove()); err != nil {
			t.Error(err)
		}
	}()
	cmd := exec.CommandContext(t.Context(), "cat") // lives until its stdin ends
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for controller := range g.dirs {
		if !strings.Contains(string(b), controller) || !strings.Contains(string(b), path) {
			t.Errorf("%s: process is in %s", controller, b)
		}
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("oom kills: %d, %v", n, err)
	}
	_ = stdin.Close()
	_ = cmd.Wait()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Errorf("a process that has ended: %v", err)
	}
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
	b, err := os.ReadFile(filepath.Join(g.dirs[controller], "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(strings.Fields(string(b)), strconv.Itoa(pid))
}

// TestEnter: what is started after Enter is in the group, EnterAll brings it into
// all hierarchies, also a child of a child, and Leave takes this process alone out.
func TestEnter(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	g, err := Create(fmt.Sprintf("/ccv2-test-enter-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}()
	if err := g.Enter(); err != nil {
		t.Fatal(err)
	}
	started, end := startTwo(t)
	defer end()
	for controller := range g.dirs {
		for _, pid := range started {
			if late := g.limitsTime(controller); g.has(t, controller, pid) == late {
				t.Errorf("%q: process %d, late %v, is in the wrong group", controller, pid, late)
			}
		}
	}
	if err := errors.Join(g.EnterAll(), g.Leave()); err != nil {
		t.Fatal(err)
	}
	for controller := range g.dirs {
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

// TestUnified: each group above the new one gives its children the controllers
// that it has, and no others.
func TestUnified(t *testing.T) {
	top := t.TempDir()
	root = top
	defer func() { root = Root }()
	write := func(dir, has, gives string) {
		t.Helper()
		path := filepath.Join(top, dir)
		err := errors.Join(os.MkdirAll(path, 0o755),
			os.WriteFile(filepath.Join(path, "cgroup.controllers"), []byte(has), 0o600),
			os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte(gives), 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
	gives := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(top, dir, "cgroup.subtree_control"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write("", "cpu memory rdma", "cpu\n")
	write("default", "memory", "")
	g, err := Create("/default/id")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.dirs[""]); err != nil {
		t.Error(err)
	}
	// The kernel adds to what was written before; a file has what was written last.
	if got := gives(""); got != "+memory" {
		t.Errorf("the root gives %q", got)
	}
	if got := gives("default"); got != "+memory" {
		t.Errorf("the parent gives %q", got)
	}
}
