package netconf

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// noDevices finds no device but those that are there already.
type noDevices struct{}

func (noDevices) Wait(ctx context.Context, check func() (bool, error)) error {
	if ok, err := check(); ok || err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// newGuestNetwork returns a network that is an empty namespace with two
// interfaces, as a guest's is after two were plugged in.
func newGuestNetwork(t *testing.T) *Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	n := New(noDevices{})
	result := make(chan error, 1)
	go func() { result <- n.openElsewhere() }()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.handle.Close)
	n.addLink(t, "eth0", macOf(0x10))
	n.addLink(t, "eth1", macOf(0x11))
	return n
}

// openElsewhere opens a socket in a new namespace. The thread comes back, or ends.
func (n *Network) openElsewhere() error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

func macOf(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }

// addLink makes what looks like an interface: the end of a veth pair.
func (n *Network) addLink(t *testing.T, name string, mac net.HardwareAddr) {
	t.Helper()
	peer := "far-" + name
	err := n.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac, MTU: 1500}, PeerName: peer})
	if err != nil {
		t.Fatal(err)
	}
	link, err := n.handle.LinkByName(peer)
	if err == nil {
		err = n.handle.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (n *Network) setInterface(t *testing.T, req hyperstart.Interface) {
	t.Helper()
	if err := n.SetInterface(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// shown returns the addresses of an interface.
func (n *Network) shown(t *testing.T, name string) (addresses []string) {
	t.Helper()
	link, err := n.handle.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := n.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range list {
		addresses = append(addresses, addr.IPNet.String())
	}
	return addresses
}

// TestInterfaceNames gives both interfaces the name that the other one has.
func TestInterfaceNames(t *testing.T) {
	n := newGuestNetwork(t)
	first := hyperstart.Interface{
		NewDevice: "eth1", MAC: macOf(0x10).String(), MTU: 1400,
		IPAddresses: []hyperstart.Address{{IP: "192.0.2.2", Mask: "24"}, {IP: "2001:db8::2", Mask: "64"}},
	}
	n.setInterface(t, first)
	n.setInterface(t, hyperstart.Interface{NewDevice: "eth0", MAC: macOf(0x11).String(), MTU: 1500})
	link, err := n.handle.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	if got := link.Attrs(); got.HardwareAddr.String() != first.MAC || got.MTU != 1400 || got.Flags&net.FlagUp == 0 {
		t.Errorf("eth1 is %s, mtu %d, %v", got.HardwareAddr, got.MTU, got.Flags)
	}
	// No link-local address but one that the host names, and no other route.
	if diff := cmp.Diff([]string{"192.0.2.2/24", "2001:db8::2/64"}, n.shown(t, "eth1")); diff != "" {
		t.Errorf("addresses of eth1 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string(nil), n.mainRoutes(t)); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

// TestInterfaceAgain changes addresses; what a container added stays.
func TestInterfaceAgain(t *testing.T) {
	n := newGuestNetwork(t)
	req := hyperstart.Interface{NewDevice: "eth0", MAC: macOf(0x10).String(), IPAddresses: []hyperstart.Address{
		{IP: "192.0.2.2", Mask: "24"}, {IP: "192.0.2.3", Mask: "24"}, {IP: "198.51.100.1", Mask: "32", Peer: "198.51.100.2"},
	}}
	n.setInterface(t, req)
	link, err := n.handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	own, err := netlink.ParseAddr("203.0.113.1/24")
	if err == nil {
		err = n.handle.AddrAdd(link, own)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The kernel removes .3 together with .2, which was first.
	req.IPAddresses = []hyperstart.Address{{IP: "192.0.2.3", Mask: "24"}, {IP: "192.0.2.4", Mask: "24"}}
	n.setInterface(t, req)
	got := n.shown(t, "eth0")
	slices.Sort(got)
	if diff := cmp.Diff([]string{"192.0.2.3/24", "192.0.2.4/24", "203.0.113.1/24"}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// TestInterfacesWithOneMAC are told apart by their names.
func TestInterfacesWithOneMAC(t *testing.T) {
	n := newGuestNetwork(t)
	n.addLink(t, "eth2", macOf(0x10))
	for _, name := range []string{"a0", "b0", "a0", "b0"} {
		n.setInterface(t, hyperstart.Interface{NewDevice: name, MAC: macOf(0x10).String()})
	}
	for _, name := range []string{"a0", "b0", "eth1"} {
		if _, err := n.handle.LinkByName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInterfaceRefusals(t *testing.T) {
	n := newGuestNetwork(t)
	mac := macOf(0x10).String()
	for name, req := range map[string]hyperstart.Interface{
		"no mac":      {NewDevice: "eth0"},
		"no name":     {MAC: mac},
		"bad address": {NewDevice: "eth0", MAC: mac, IPAddresses: []hyperstart.Address{{IP: "nonsense", Mask: "24"}}},
		"bad prefix":  {NewDevice: "eth0", MAC: mac, IPAddresses: []hyperstart.Address{{IP: "192.0.2.2", Mask: "33"}}},
		"bad peer":    {NewDevice: "eth0", MAC: mac, IPAddresses: []hyperstart.Address{{IP: "192.0.2.2", Mask: "32", Peer: "x"}}},
	} {
		var got *hyperstart.GuestError
		if err := n.SetInterface(t.Context(), req); !errors.As(err, &got) || got.Class != hyperstart.ClassInvalidArgument {
			t.Errorf("%s: got %v, want an invalid argument", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := n.SetInterface(ctx, hyperstart.Interface{NewDevice: "eth9", MAC: macOf(0x99).String()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v for a device that does not come, want the context's end", err)
	}
}

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

// lateDevices finds no device until it is told to.
type lateDevices struct {
	waiting chan struct{} // gets one value for every wait that goes on
	plugged chan struct{} // closed when there may be a new device
}

func (d lateDevices) Wait(ctx context.Context, check func() (bool, error)) error {
	for {
		ok, err := check()
		if ok || err != nil {
			return err
		}
		d.waiting <- struct{}{}
		select {
		case <-d.plugged:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestNetworkBesideWait sets routes and another interface while an interface
// waits for its device, and ends a command whose caller has given up.
func TestNetworkBesideWait(t *testing.T) {
	n := newGuestNetwork(t)
	devices := lateDevices{waiting: make(chan struct{}, 1), plugged: make(chan struct{})}
	n.devices = devices
	late := make(chan error, 1)
	go func() {
		late <- n.SetInterface(t.Context(), hyperstart.Interface{NewDevice: "eth2", MAC: macOf(0x12).String()})
	}()
	<-devices.waiting

	beside := make(chan error, 1)
	go func() {
		beside <- errors.Join(
			n.SetInterface(t.Context(), hyperstart.Interface{
				NewDevice: "eth0", MAC: macOf(0x10).String(), IPAddresses: []hyperstart.Address{{IP: "192.0.2.2", Mask: "24"}},
			}),
			n.SetRoutes(t.Context(), hyperstart.Routes{Routes: []hyperstart.Route{{Dest: "192.0.2.0/24", Device: "eth0"}}}))
	}()
	select {
	case err := <-beside:
		if err != nil {
			t.Error(err)
		}
	case err := <-late:
		t.Fatalf("the other commands waited for the device, until: %v", err)
	}

	n.addLink(t, "kernel0", macOf(0x12))
	close(devices.plugged)
	if err := <-late; err != nil {
		t.Error(err)
	}
	if _, err := n.handle.LinkByName("eth2"); err != nil {
		t.Error(err)
	}

	n.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.SetRoutes(ctx, hyperstart.Routes{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a command that waits for its turn: got %v, want the context's end", err)
	}
	<-n.turn
}
