package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestStats(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"cpu.stat":       "usage_usec 1500\nuser_usec 1000\nbad line here\nnr_throttled x\n",
		"memory.stat":    "anon 4096\nfile 8192\n",
		"memory.current": "12288\n",
		"memory.max":     "max\n",
		"memory.events":  "low 0\noom_kill 3\n",
		"pids.current":   "2\n",
		"pids.max":       "100\n",
		"io.stat":        "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:1 \nnonsense a=b\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Group(dir).Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := &hyperstart.Stats{
		CPU:    map[string]uint64{"usage_usec": 1500, "user_usec": 1000},
		Memory: map[string]uint64{"anon": 4096, "file": 8192}, MemoryCurrent: 12288,
		MemoryEvents: map[string]uint64{"low": 0, "oom_kill": 3}, PIDsCurrent: 2, PIDsMax: 100,
		IO: []hyperstart.IOStats{{Major: 254, RBytes: 1, WBytes: 2, RIOs: 3, WIOs: 4}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := Group(filepath.Join(dir, "none")).Stats(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing cgroup: %v", err)
	}
}

func TestPIDs(t *testing.T) {
	dir := t.TempDir()
	for path, content := range map[string]string{"cgroup.procs": "1\n", "a/cgroup.procs": "20\n21\n", "a/b/cgroup.procs": ""} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Group(dir).PIDs()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{20, 21, 1}, got); diff != "" {
		t.Error(diff)
	}
	if pids, err := Group(filepath.Join(dir, "none")).PIDs(); err != nil || pids != nil {
		t.Errorf("missing cgroup: %v, %v", pids, err)
	}
}
