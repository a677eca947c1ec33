package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// nothing is for specifications that need nothing of the guest.
func nothing(_, _ map[string]json.RawMessage) error { return nil }

func TestGuestSpec(t *testing.T) {
	const in = `{"ociVersion":"9.9","future":{"a":1},"process":{"terminal":true,"args":["sh"],"cwd":"/"},` +
		`"linux":{"cgroupsPath":"system.slice:x:y","resources":{"unknown":2}}}`
	config, p, err := guestSpec(json.RawMessage(in), "/ccv2/id", nothing)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	const out = `{"ociVersion":"9.9","future":{"a":1},"mounts":[],"process":{"terminal":true,"args":["sh"],"cwd":"/","rlimits":` + limitsJSON + `},` +
		`"linux":{"cgroupsPath":"/ccv2/id","resources":{"unknown":2}}}`
	if json.Unmarshal(config, &got) != nil || json.Unmarshal([]byte(out), &want) != nil {
		t.Fatal("not json")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !p.Terminal || p.Args[0] != "sh" {
		t.Errorf("got %+v", p)
	}
	for _, bad := range []string{``, `null`, `[]`, `{}`, `{"process":{}}`, `{"process":{"args":[""]}}`, `{"process":{"args":["a"]},"linux":3}`} {
		if _, _, err := guestSpec(json.RawMessage(bad), "/x", nothing); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{"a": true, "A-b_c.9": true, "": false, "../x": false, "a/b": false, ".a": false} {
		if err := checkID("container", id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestTasksOf: a process that has ended is left out, one whose status is not understood is not.
func TestTasksOf(t *testing.T) {
	proc := t.TempDir()
	write := func(pid, stat string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(proc, pid), 0o755), os.WriteFile(filepath.Join(proc, pid, "stat"), []byte(stat), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("7", "7 (a ) b) S 1 7 7 34817 7 4194304 95 0 0 0 6100 100 0 0 20 0 1 0 360000 0 0")
	list := &hyperstart.ProcessList{Processes: []hyperstart.ProcessInfo{{PID: 6}, {PID: 7}}}
	tasks, err := tasksOf(proc, list, time.Unix(0, 0))
	if err != nil || len(tasks) != 1 || tasks[0].PID != 7 || tasks[0].Parent != 1 {
		t.Errorf("%+v, %v", tasks, err)
	}
	write("6", "6 (x) S")
	if tasks, err := tasksOf(proc, list, time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "process 6: ") {
		t.Errorf("%+v, %v", tasks, err)
	}
}
