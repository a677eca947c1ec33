package sandbox_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// TestNamesOfTheGuest: exec ids that nobody has made do not reach clients.
func TestNamesOfTheGuest(t *testing.T) {
	f := newFixture(t)
	c := f.run(podID, "wait")
	f.exec(c, "known", "wait")
	if err := c.StartExec(t.Context(), "known"); err != nil {
		t.Fatal(err)
	}
	session, err := f.machine.Agent.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	invented := client.Exec{Container: podID, ID: "\x1b[2J\n", Process: &specs.Process{Args: []string{"wait"}}}
	if err := f.machine.Agent.Exec(t.Context(), session, invented); err != nil {
		t.Fatal(err)
	}
	list, err := c.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, p := range list {
		got[p.ExecID]++
	}
	if diff := cmp.Diff(map[string]int{"": 2, "known": 1}, got); diff != "" {
		t.Errorf("processes by exec id (-want +got):\n%s", diff)
	}
	_ = session.Close()
}
