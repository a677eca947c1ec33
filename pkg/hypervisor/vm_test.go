package hypervisor

import "testing"

func TestExitString(t *testing.T) {
	for want, exit := range map[string]Exit{
		"exited with code 1":       {Code: 1},
		"died of signal killed":    {Signal: 9},
		"exited with code 2: a; b": {Code: 2, Stderr: "a\nb"},
		"exited with code 3: ?[2J": {Code: 3, Stderr: "\x1b[2J"}, // virtiofsd quotes names of the guest
	} {
		if got := exit.String(); got != want {
			t.Errorf("%+v: %q, want %q", exit, got, want)
		}
	}
}
