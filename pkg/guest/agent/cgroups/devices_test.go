package cgroups

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestCheckDevices: a device that is given by its number has to be the guest's, too.
func TestCheckDevices(t *testing.T) {
	has := func(major, minor int64) bool { return major == 10 && minor == 229 }
	for _, test := range []struct{ name, devices, rules, says string }{
		{"none", ``, `[{"allow": false, "access": "rwm"}]`, ""},
		{"the guest's", `[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]`, `[{"allow": true, "type": "c", "major": 10, "minor": 229}]`, ""},
		{"the guest's, unbuffered", `[{"path": "/dev/fuse", "type": "u", "major": 10, "minor": 229}]`, `[{"allow": true, "type": "c", "major": 10, "minor": 229}]`, ""},
		{"the host's", `[{"path": "/dev/card", "type": "c", "major": 195, "minor": 0}]`, `[{"allow": true, "type": "c", "major": 195, "minor": 0}]`, "/dev/card (c 195:0)"},
		{"a disk", `[{"path": "/dev/fuse", "type": "b", "major": 10, "minor": 229}]`, `[{"allow": true, "type": "b", "major": 10, "minor": 229}]`, "/dev/fuse (b 10:229)"},
		{"of a privileged container", `[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`, `[{"allow": true, "access": "rwm"}]`, ""},
		{"of all disks", `[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`, `[{"allow": true, "type": "b", "major": 8, "access": "rwm"}]`, "/dev/sda (b 8:0)"},
		{"that may only be made", `[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`, `[{"allow": true, "type": "b", "major": 8, "access": "m"}]`, ""},
		{"that may not be used", `[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`, `[{"allow": false, "type": "b", "major": 8, "minor": 0}]`, ""},
		{"another one", `[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]`, `[{"allow": true, "type": "b", "major": 8, "minor": 1}]`, ""},
		{"a pipe", `[{"path": "/dev/p", "type": "p"}]`, `[{"allow": true, "type": "p", "major": 0, "minor": 0}]`, ""},
		{"nonsense", `{}`, `[]`, "decode"},
	} {
		linux := map[string]json.RawMessage{"resources": json.RawMessage(`{"devices": ` + test.rules + `}`)}
		if test.devices != "" {
			linux["devices"] = json.RawMessage(test.devices)
		}
		err := CheckDevices(linux, has)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
	}
}
