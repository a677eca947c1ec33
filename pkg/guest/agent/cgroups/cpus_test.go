package cgroups

import (
	"encoding/json"
	"testing"
)

// TestFitCPUs keeps a cpuset of the guest's processors, and drops the host's.
func TestFitCPUs(t *testing.T) {
	for _, test := range []struct{ online, resources, want, instead string }{
		{"0-3", `{"cpu":{"cpus":"1,3","quota":5}}`, `{"cpu":{"cpus":"1,3","quota":5}}`, ""},
		{"0-1", `{"cpu":{"cpus":"2-3","quota":5},"x":1}`, `{"cpu":{"quota":5},"x":1}`, ""},
		{"0", `{"cpu":{"cpus":"0-1"}}`, `{"cpu":{}}`, ""},
		{"0,2-3", `{"cpu":{"cpus":"0, 2-3"}}`, `{"cpu":{"cpus":"0, 2-3"}}`, ""},
		{"0", `{"cpu":{"cpus":""}}`, `{"cpu":{"cpus":""}}`, ""},
		{"0", `{"cpu":{"quota":5}}`, `{"cpu":{"quota":5}}`, ""},
		{"0", `{"memory":{}}`, `{"memory":{}}`, ""},
		{"0", ``, ``, ""},
		{"0-1", `{"cpu":{"cpus":"2-3","quota":5}}`, `{"cpu":{"cpus":"0-1","quota":5}}`, "0-1"},
		{"0-1", `{"cpu":{"cpus":"1"}}`, `{"cpu":{"cpus":"1"}}`, "0-1"},
		{"0-1", `{"cpu":{"quota":5}}`, `{"cpu":{"quota":5}}`, "0-1"},
	} {
		linux := map[string]json.RawMessage{"resources": json.RawMessage(test.resources)}
		if err := fitCPUs(test.online, test.instead, linux); err != nil || string(linux["resources"]) != test.want {
			t.Errorf("%s of %s: %s, want %s (%v)", test.resources, test.online, linux["resources"], test.want, err)
		}
	}
	for _, bad := range []string{"a", "3-1", "-1", "1-", "0-99999999", "1;2"} {
		cpus, _ := json.Marshal(map[string]any{"cpu": map[string]string{"cpus": bad}})
		if err := fitCPUs("0-3", "", map[string]json.RawMessage{"resources": cpus}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
