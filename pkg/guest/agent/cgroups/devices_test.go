package cgroups

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFitDevices: a character device that is given by its number has to be the guest's, too.
func TestFitDevices(t *testing.T) {
	has := func(major, minor int64) bool { return major == 10 && minor == 229 }
	for _, test := range []struct{ name, devices, rules, says string }{
		{"none", ``, `[{"allow": false, "access": "rwm"}]`, ""},
		{"the guest's", `[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]`, `[{"allow": true, "type": "c", "major": 10, "minor": 229}]`, ""},
		{"the guest's, unbuffered", `[{"path": "/dev/fuse", "type": "u", "major": 10, "minor": 229}]`, `[{"allow": true, "type": "c", "major": 10, "minor": 229}]`, ""},
		{"the host's", `[{"path": "/dev/card", "type": "c", "major": 195, "minor": 0}]`, `[{"allow": true, "type": "c", "major": 195, "minor": 0}]`, "/dev/card (c 195:0)"},
		{"a disk", `[{"path": "/dev/fuse", "type": "b", "major": 10, "minor": 229}]`, `[{"allow": true, "type": "b", "major": 10, "minor": 229}]`, ""},
		{"of a privileged container", `[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`, `[{"allow": true, "access": "rwm"}]`, ""},
		{"of all of a driver", `[{"path": "/dev/card", "type": "c", "major": 195, "minor": 0}]`, `[{"allow": true, "type": "c", "major": 195, "access": "rwm"}]`, "/dev/card (c 195:0)"},
		{"that may only be made", `[{"path": "/dev/card", "type": "c", "major": 195, "minor": 0}]`, `[{"allow": true, "type": "c", "major": 195, "access": "m"}]`, ""},
		{"that may not be used", `[{"path": "/dev/card", "type": "c", "major": 195, "minor": 0}]`, `[{"allow": false, "type": "c", "major": 195, "minor": 0}]`, ""},
		{"another one", `[{"path": "/dev/card", "type": "c", "major": 195, "minor": 0}]`, `[{"allow": true, "type": "c", "major": 195, "minor": 1}]`, ""},
		{"a pipe", `[{"path": "/dev/p", "type": "p"}]`, `[{"allow": true, "type": "p", "major": 0, "minor": 0}]`, ""},
		{"nonsense", `{}`, `[]`, "decode"},
	} {
		linux := map[string]json.RawMessage{"resources": json.RawMessage(`{"devices": ` + test.rules + `}`)}
		if test.devices != "" {
			linux["devices"] = json.RawMessage(test.devices)
		}
		err := FitDevices(linux, nil, has)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
	}
}

// TestFitDisks: nodes of disks, and the rules about them, get the guest's numbers; rules
// about other disks are dropped.
func TestFitDisks(t *testing.T) {
	linux := map[string]json.RawMessage{
		"devices": json.RawMessage(`[{"path": "/dev/disk", "type": "b", "major": 7, "minor": 3, "fileMode": 416, "uid": 5, "gid": 6},
			{"path": "/dev/null", "type": "c", "major": 7, "minor": 3}, {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`),
		"resources": json.RawMessage(`{"memory": {"limit": 1}, "devices": [{"allow": false, "access": "rwm"},
			{"allow": true, "type": "c", "major": 7, "minor": 3, "access": "rw"}, {"allow": true, "type": "b", "access": "m"},
			{"allow": true, "type": "b", "major": 7, "minor": 3, "access": "r"}, {"allow": true, "type": "b", "major": 254, "access": "rwm"},
			{"allow": true, "type": "b", "major": 254, "minor": 0, "access": "rwm"}, {"allow": false, "type": "b", "major": 7, "access": "w"}]}`),
	}
	disks := map[Number]Number{{7, 3}: {254, 16}}
	if err := FitDevices(linux, disks, func(_, _ int64) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]string{
		"devices": `[{"path":"/dev/disk","type":"b","major":254,"minor":16,"fileMode":416,"uid":5,"gid":6},` +
			`{"path":"/dev/null","type":"c","major":7,"minor":3},{"path":"/dev/sda","type":"b","major":0,"minor":0}]`,
		"resources": `{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":7,"minor":3,"access":"rw"},` +
			`{"allow":true,"type":"b","access":"m"},{"allow":true,"type":"b","major":254,"minor":16,"access":"r"},` +
			`{"allow":false,"type":"b","major":254,"minor":16,"access":"w"}],"memory":{"limit":1}}`,
	} {
		if diff := cmp.Diff(want, string(linux[part])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", part, diff)
		}
	}
}
