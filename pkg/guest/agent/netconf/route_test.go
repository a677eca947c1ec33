package netconf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// routes returns destination and way of what is in the main table.
func (n *Network) mainRoutes(t *testing.T) (list []string) {
	t.Helper()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := n.handle.RouteListFiltered(family, &netlink.Route{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.LinkIndex == 1 && r.Type == unix.RTN_UNICAST || r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue // lo, and the far ends' own
			}
			words := []string{r.Dst.String()}
			if r.Gw != nil {
				words = append(words, "via", r.Gw.String())
			}
			for _, hop := range r.MultiPath {
				words = append(words, "hop", hop.Gw.String())
			}
			if r.Flags&unix.RTNH_F_ONLINK != 0 {
				words = append(words, "onlink")
			}
			list = append(list, strings.Join(words, " "))
		}
	}
	return list
}

// TestRoutes has routes in an order in which the kernel does not take them.
func TestRoutes(t *testing.T) {
	n := newGuestNetwork(t)
	iface := hyperstart.Interface{NewDevice: "eth0", MAC: macOf(0x10).String(), IPAddresses: []hyperstart.Address{
		{IP: "192.0.2.2", Mask: "24"}, {IP: "2001:db8::2", Mask: "64"},
	}}
	n.setInterface(t, iface)
	routes := []hyperstart.Route{
		{Dest: "default", Gateway: "198.51.100.1", Device: "eth0"},
		{Dest: "198.51.100.1/32", Gateway: "192.0.2.1", Device: "eth0", Source: "192.0.2.2", Metric: 5},
		{Dest: "192.0.2.0/24", Device: "eth0", Scope: unix.RT_SCOPE_LINK},
		{Dest: "198.18.0.0/24", Type: hyperstart.RouteBlackhole},
		{Dest: "198.18.1.0/24", NextHops: []hyperstart.NextHop{{Gateway: "192.0.2.1", Device: "eth0"}, {Gateway: "192.0.2.9", Device: "eth0", Weight: 3}}},
		{Dest: "198.18.2.0/24", Gateway: "10.0.0.1", Device: "eth0"}, // was reachable once
		{Dest: "2001:db8::/64", Device: "eth0", Metric: 256},
		{Dest: "::/0", Gateway: "2001:db8::1", Device: "eth0"},
		{Dest: "2001:db8:9::/48", Type: hyperstart.RouteUnreachable},
	}
	set := func(want ...hyperstart.Route) {
		t.Helper()
		links, err := n.links()
		if err == nil {
			err = n.setRoutes(links, n.routes.Routes, want)
		}
		if err != nil {
			t.Fatal(err)
		}
		n.routes.Routes = want
	}
	want := []string{
		"0.0.0.0/0 via 198.51.100.1 onlink", "192.0.2.0/24", "198.18.0.0/24", "198.18.1.0/24 hop 192.0.2.1 hop 192.0.2.9",
		"198.18.2.0/24 via 10.0.0.1 onlink", "198.51.100.1/32 via 192.0.2.1",
		"2001:db8::/64", "2001:db8:9::/48", "::/0 via 2001:db8::1",
	}
	for range 2 { // the second time nothing is new
		set(routes...)
		if diff := cmp.Diff(want, n.mainRoutes(t)); diff != "" {
			t.Errorf("routes (-want +got):\n%s", diff)
		}
	}
	set(routes[2], routes[6])
	if diff := cmp.Diff([]string{"192.0.2.0/24", "2001:db8::/64"}, n.mainRoutes(t)); diff != "" {
		t.Errorf("routes after a removal (-want +got):\n%s", diff)
	}
	set()
	if got := n.mainRoutes(t); len(got) != 0 {
		t.Errorf("routes are left: %v", got)
	}
}

func TestRouteTypes(t *testing.T) {
	for kind, want := range map[hyperstart.RouteType]int{
		hyperstart.RouteUnicast: unix.RTN_UNICAST, hyperstart.RouteBlackhole: unix.RTN_BLACKHOLE,
		hyperstart.RouteUnreachable: unix.RTN_UNREACHABLE, hyperstart.RouteProhibit: unix.RTN_PROHIBIT,
		hyperstart.RouteThrow: unix.RTN_THROW,
	} {
		if got, ok := kind.Number(); got != want || !ok {
			t.Errorf("%q is %d, %t, want %d", kind, got, ok, want)
		}
		if got, ok := hyperstart.RouteTypeOf(want); got != kind || !ok {
			t.Errorf("%d is %q, %t, want %q", want, got, ok, kind)
		}
	}
	if kind, ok := hyperstart.RouteTypeOf(unix.RTN_LOCAL); ok {
		t.Errorf("a local route is %q", kind)
	}
}

func TestRouteRefusals(t *testing.T) {
	n := newGuestNetwork(t)
	links, err := n.links()
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]hyperstart.Route{
		"type":        {Dest: "192.0.2.0/24", Type: "nat"},
		"destination": {Dest: "here", Device: "eth0"},
		"gateway":     {Dest: "default", Gateway: "there", Device: "eth0"},
		"source":      {Dest: "default", Source: "me", Device: "eth0"},
		"device":      {Dest: "default", Device: "eth7"},
		"hop":         {Dest: "default", NextHops: []hyperstart.NextHop{{Device: "eth7"}}},
	} {
		if err := n.setRoutes(links, nil, []hyperstart.Route{r}); err == nil {
			t.Errorf("%s: %+v was added", name, r)
		}
	}
}

func TestNeighbors(t *testing.T) {
	n := newGuestNetwork(t)
	n.setInterface(t, hyperstart.Interface{NewDevice: "eth0", MAC: macOf(0x10).String()})
	links, err := n.links()
	if err != nil {
		t.Fatal(err)
	}
	first := hyperstart.Neighbor{Device: "eth0", IP: "192.0.2.77", MAC: macOf(0x77).String()}
	second := hyperstart.Neighbor{Device: "eth0", IP: "2001:db8::77", MAC: macOf(0x78).String()}
	var before []hyperstart.Neighbor
	for _, want := range [][]hyperstart.Neighbor{{first}, {first, second}, {second}, nil} {
		if err := n.setNeighbors(links, before, want); err != nil {
			t.Fatal(err)
		}
		before = want
		list, err := n.handle.NeighList(links["eth0"], netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		var got []hyperstart.Neighbor
		for _, n := range list {
			if n.State == netlink.NUD_PERMANENT {
				got = append(got, hyperstart.Neighbor{Device: "eth0", IP: n.IP.String(), MAC: n.HardwareAddr.String()})
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("neighbours (-want +got):\n%s", diff)
		}
	}
	bad := hyperstart.Neighbor{Device: "eth0", IP: "192.0.2.77", MAC: "x"}
	if err := n.setNeighbors(links, nil, []hyperstart.Neighbor{bad}); err == nil {
		t.Error("a neighbour without a MAC was added")
	}
}
