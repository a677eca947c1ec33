package sandbox

import (
	"errors"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network/networktest"
)

// TestNetworkOfSandbox tells the guest before STARTPOD, follows changes, and
// gives the links back.
func TestNetworkOfSandbox(t *testing.T) {
	ns := networktest.New(t)
	ns.Add("eth0", "192.0.2.2/24")
	f := newFixture(t, hyperstart.DialectCCv2)
	told := make(chan hyperstart.Code, 16)
	f.agent.noted = func(code hyperstart.Code) {
		if code == hyperstart.SetupInterface || code == hyperstart.SetupRoute || code == hyperstart.StartPod {
			told <- code
		}
	}
	expect := func(want ...hyperstart.Code) {
		t.Helper()
		for _, code := range want {
			select {
			case got := <-told:
				if got != code {
					t.Errorf("the guest was told %s, want %s", got, code)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("the guest was not told %s", code)
			}
		}
	}
	pod := bundle.Pod{Hostname: "h", Network: bundle.Network{Path: ns.Path}}
	if err := f.EnsureReady(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	expect(hyperstart.SetupInterface, hyperstart.SetupRoute, hyperstart.StartPod)
	state, err := f.record().Load()
	if err != nil || state.NetNS != ns.Path {
		t.Errorf("recorded is %q, %v", state.NetNS, err)
	}
	eth0, err := ns.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	ns.AddAddress(eth0, "192.0.2.3/24")
	expect(hyperstart.SetupInterface, hyperstart.SetupRoute)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	qdiscs, err := ns.QdiscList(eth0)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qdiscs {
		if q.Type() == "ingress" {
			t.Error("eth0 is still mirrored")
		}
	}
}

// TestHostNetworkTakesNothing refuses before a VM is started.
func TestHostNetworkTakesNothing(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	err := f.EnsureReady(t.Context(), bundle.Pod{Network: bundle.Network{Host: true}})
	if !errors.Is(err, network.ErrHost) {
		t.Errorf("got %v, want a refusal", err)
	}
	if f.driver.machine() != nil {
		t.Error("a VM was started")
	}
}
