package hostcgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	if err := errors.Join(g.Enter(), g.Leave()); err != nil {
		t.Error(err)
	}
	_ = stdin.Close()
	_ = cmd.Wait()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Errorf("a process that has ended: %v", err)
	}
}
