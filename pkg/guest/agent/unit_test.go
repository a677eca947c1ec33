package agent

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
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
