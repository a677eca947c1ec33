package sandbox

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network/networktest"
)

func legacyExample() (ports []hyperstart.Interface, routes []hyperstart.Route) {
	first := hyperstart.Interface{NewDevice: "eth0", MAC: "02:00:00:00:00:01", MTU: 1400, NoARP: true, IPAddresses: []hyperstart.Address{
		{IP: "192.0.2.2", Mask: "24"}, {IP: "2001:db8::2", Mask: "64"}, {IP: "fe80::1", Mask: "64"},
	}}
	second := hyperstart.Interface{NewDevice: "data", MAC: "02:00:00:00:00:02", MTU: 1500, IPAddresses: []hyperstart.Address{
		{IP: "198.51.100.2", Mask: "32", Peer: "198.51.100.1"},
	}}
	ports = []hyperstart.Interface{first, second}
	routes = []hyperstart.Route{
		{Dest: "192.0.2.0/24", Device: "eth0", Protocol: unix.RTPROT_KERNEL},
		{Dest: "default", Gateway: "192.0.2.1", Device: "eth0", Protocol: unix.RTPROT_BOOT, Metric: 100},
		{Dest: "::/0", Gateway: "2001:db8::1", Device: "eth0"},
		{Dest: "198.18.0.0/24", Type: hyperstart.RouteBlackhole},
	}
	return ports, routes
}

// TestLegacyNetwork has no key that an original agent refuses.
func TestLegacyNetwork(t *testing.T) {
	dropped := []string{"address 2001:db8::2", "address 198.51.100.2", "route ::/0", "route 198.18.0.0/24"}
	routes := `[{"dest":"default","gateway":"192.0.2.1","device":"eth0"}]`
	byName := `[{"device":"eth0","ipAddresses":[{"ipAddress":"192.0.2.2","netMask":"24"}],"mtu":1400},{"device":"eth1","newDeviceName":"data","mtu":1500}]`
	byMAC := `[{"newDeviceName":"eth0","ipAddresses":[{"ipAddress":"192.0.2.2","netMask":"24"}],"mtu":1400,"macAddr":"02:00:00:00:00:01"},` +
		`{"newDeviceName":"data","mtu":1500,"macAddr":"02:00:00:00:00:02"}]`
	for dialect, want := range map[hyperstart.Dialect]string{
		hyperstart.DialectHyperhq: byName, hyperstart.DialectClearC: byName, hyperstart.DialectClearGo: byMAC,
	} {
		ports, all := legacyExample()
		interfaces, kept, without := legacyNetwork(ports, all, dialect)
		for _, part := range []struct {
			got  any
			want string
		}{{interfaces, want}, {kept, routes}} {
			b, err := json.Marshal(part.got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(part.want, string(b)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", dialect, diff)
			}
		}
		if diff := cmp.Diff(dropped, without); diff != "" {
			t.Errorf("%s leaves out (-want +got):\n%s", dialect, diff)
		}
	}
}

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
	state, err := f.Sandbox.dir.Load()
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
