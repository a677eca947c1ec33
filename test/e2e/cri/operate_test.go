//go:build e2e

package cri_test

import (
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestOperatePod: what an operator sees of a pod's interface, of its streams, and of what passes between shim and guest.
func TestOperatePod(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "operated", nil)
	c := pod.Start(t, "web", "echo 123456789; echo 1234 >&2; "+harness.Sleep)
	address := addressOf(t, c, "-4")
	text := shared.CCV2OK(t, "info", "operated")
	t.Logf("\n%s", text)
	if !strings.Contains(text, "interface   eth0, ") || !strings.Contains(text, ", mtu 1400, ") || !strings.Contains(text, " "+address+"/") {
		t.Errorf("it does not say what eth0 is, with %s", address)
	}
	var stats struct {
		Streams []struct {
			Container             string
			Stdin, Stdout, Stderr uint64
		}
		Messages []struct {
			Kind     string
			Messages uint64
		}
		Interfaces []struct {
			Name    string
			RXBytes uint64 `json:"rx_bytes"`
		}
	}
	harness.Until(t, "count of the streams", func() bool {
		shared.CCV2JSON(t, &stats, "stats", "operated")
		for _, s := range stats.Streams {
			if s.Container == c.ID && s.Stdin == 0 && s.Stdout == 10 && s.Stderr == 5 {
				return true
			}
		}
		return false
	})
	kinds := make(map[string]uint64)
	for _, m := range stats.Messages {
		kinds[m.Kind] += m.Messages
	}
	for kind, least := range map[string]uint64{"NEWCONTAINER": 2, "STARTCONTAINER": 2, "EXECCMD": 1, "RESULT": 5, "data": 2, "command Hyper": 5, "stream stdout": 1} {
		if kinds[kind] < least {
			t.Errorf("%d messages %s, want %d", kinds[kind], kind, least)
		}
	}
	t.Logf("\n%s", shared.CCV2OK(t, "stats", "operated", "--messages"))
}
