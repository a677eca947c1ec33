package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGuestSpec(t *testing.T) {
	const in = `{"ociVersion":"9.9","future":{"a":1},"process":{"terminal":true,"args":["sh"],"cwd":"/"},` +
		`"linux":{"cgroupsPath":"system.slice:x:y","resources":{"unknown":2}}}`
	config, p, err := new(Agent).guestSpec(json.RawMessage(in), "id", "/ccv2/id")
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	const out = `{"ociVersion":"9.9","future":{"a":1},"process":{"terminal":true,"args":["sh"],"cwd":"/"},` +
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
		if _, _, err := new(Agent).guestSpec(json.RawMessage(bad), "x", "/x"); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// TestTransitions checks the table against the rules it stands for.
func TestTransitions(t *testing.T) {
	for from := range stateCount {
		c := newContainerState("id")
		for next := range stateCount {
			c.state = from
			allowed := transitions[from]&(1<<next) != 0
			err := c.to(next)
			if allowed != (err == nil) || allowed != (c.state == next && from != next) {
				t.Errorf("%s to %s: allowed %t, got %v and state %s", from, next, allowed, err, c.state)
			}
			if next == stateStopped && from < stateStopped && !allowed {
				t.Errorf("an init that ends while its container is %s leaves it so", from)
			}
		}
		if from.String() == "" {
			t.Errorf("state %d has no name", from)
		}
	}
	if err := newContainerState("id").to(stateRunning); err == nil || err.Error() != "container id is being created" {
		t.Errorf("got %v", err)
	}
}

func TestPodClaims(t *testing.T) {
	var p pod
	if err := p.claim(podStarted, podStarted); err == nil || err.Error() != "pod is not started" {
		t.Errorf("before start: %v", err)
	}
	if err := p.claim(podNew, podStarting); err != nil {
		t.Error(err)
	}
	if err := p.claim(podNew, podStarting); err == nil || err.Error() != "pod is being started" {
		t.Errorf("during start: %v", err)
	}
}

func TestClassify(t *testing.T) {
	for msg, want := range map[string]uint8{
		"executable file `nope` not found in $PATH: No such file or directory":          127,
		"executable file `/bin/nope` not found: No such file or directory":              127,
		"open executable: Permission denied":                                            126,
		"exec /bin/x: exec format error":                                                126,
		`exec: "nope": executable file not found in $PATH`:                              127,
		`unable to start container process: exec: "/x": permission denied`:              126,
		`exec: "/nope": stat /nope: no such file or directory`:                          127,
		"mount `proc` to `proc`: Operation not permitted":                               0,
		"open `/run/ccv2/shared/x/rootfs`: No such file or directory":                   0,
		"container `x` does not exist":                                                  0,
		"cannot set memory+swap limit: open memory.swap.max: No such file or directory": 0,
	} {
		if _, got := classify(msg); got != want {
			t.Errorf("%s: got %d, want %d", msg, got, want)
		}
	}
}

func TestReason(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	content := `{"msg":"old","level":"error"}` + "\nnot json\n" + `{"msg":"executable file ` + "`x`" + ` not found","level":"error"}` + "\n" + `{"msg":"w","level":"warning"}` + "\n"
	if err := os.WriteFile(log, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	err := nameProgram(reason(log, errors.New("did not terminate successfully")), "x")
	if err.Error() != "executable file `x` not found" {
		t.Errorf("got %v", err)
	}
	err = reason(log+"none", fmt.Errorf("start: %w", os.ErrPermission))
	if err.Error() != "start: permission denied" {
		t.Errorf("without a log: got %v", err)
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{"a": true, "A-b_c.9": true, "": false, "../x": false, "a/b": false, ".a": false} {
		if err := checkID("container", id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}
