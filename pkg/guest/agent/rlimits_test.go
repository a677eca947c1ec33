package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/rlimits"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// limitsJSON are the limits of a process whose specification has none.
const limitsJSON = `[{"type":"RLIMIT_NOFILE","hard":524288,"soft":1024},` +
	`{"type":"RLIMIT_NPROC","hard":18446744073709551615,"soft":18446744073709551615},` +
	`{"type":"RLIMIT_SIGPENDING","hard":18446744073709551615,"soft":18446744073709551615}]`

// TestLimits: what a specification says counts, for init and exec processes, and
// the rest does not come from the size of the guest.
func TestLimits(t *testing.T) {
	g := newGuest(t)
	own := []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 10, Hard: 20}, {Type: "RLIMIT_CORE", Soft: 1, Hard: 1}}
	want := []specs.POSIXRlimit{own[0], own[1], rlimits.With(nil)[0], rlimits.With(nil)[2]}

	p := g.newProc(hyperstart.InitProcess)
	g.ok(hyperstart.NewContainer, hyperstart.NewContainerRequest{ID: "c", Process: p.req, Spec: marshal(t, &specs.Spec{
		Process: &specs.Process{Args: []string{"program"}, Rlimits: own, Cwd: "/there"},
	})})
	b, err := os.ReadFile(filepath.Join(g.agent.containers.bundles, "c", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&specs.Process{Args: []string{"program"}, Rlimits: want, Cwd: "/there"}, spec.Process); diff != "" {
		t.Errorf("init process (-want +got):\n%s", diff)
	}
	g.start("c")

	if diff := cmp.Diff(rlimits.With(nil), g.exec("none").fake.Spec.Rlimits); diff != "" {
		t.Errorf("exec without limits (-want +got):\n%s", diff)
	}
	limited := g.newProc("limited")
	limited.req.OCI = marshal(t, specs.Process{Args: []string{"program"}, Rlimits: own})
	g.ok(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "c", Process: limited.req})
	if diff := cmp.Diff(want, g.runtime.Process("c", "limited").Spec.Rlimits); diff != "" {
		t.Errorf("exec with limits (-want +got):\n%s", diff)
	}
}

// TestMalformedLimits is an error of the host's.
func TestMalformedLimits(t *testing.T) {
	g := newGuest(t)
	p := g.newProc(hyperstart.InitProcess)
	g.refuse(hyperstart.NewContainer, hyperstart.NewContainerRequest{
		ID: "c", Process: p.req, Spec: json.RawMessage(`{"process":{"args":["program"],"rlimits":7}}`),
	}, hyperstart.ClassInvalidArgument, "limits of process")
}
