package network

import (
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func cidr(t *testing.T, s string) *net.IPNet {
	t.Helper()
	_, n, err := net.ParseCIDR(s)
	must(t, err)
	return n
}

// scanned reads a namespace and drops what the kernel makes by itself and what
// differs from run to run.
func scanned(t *testing.T, n *Namespace) Snapshot {
	t.Helper()
	s, err := n.Scan()
	must(t, err)
	for i := range s.Endpoints {
		s.Endpoints[i].Index = 0
		e := &s.Endpoints[i].Interface
		e.IPAddresses = slices.DeleteFunc(e.IPAddresses, func(a hyperstart.Address) bool { return net.ParseIP(a.IP).IsLinkLocalUnicast() })
	}
	s.Routes.Routes = slices.DeleteFunc(s.Routes.Routes, func(r hyperstart.Route) bool { return r.Dest == "fe80::/64" })
	return s
}

func TestScan(t *testing.T) {
	far, pod := newNamespace(t), newNamespace(t)
	far.veth(t, pod, 1400)
	pod.up(t, "eth0", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64")
	eth0 := pod.link(t, "eth0")
	index := eth0.Attrs().Index
	gateway := net.ParseIP("192.0.2.1")
	for _, r := range []netlink.Route{
		{Dst: cidr(t, "0.0.0.0/0"), Gw: gateway, LinkIndex: index, Protocol: unix.RTPROT_STATIC},
		{Dst: cidr(t, "198.51.100.0/24"), Gw: gateway, Src: net.ParseIP("192.0.2.3"), LinkIndex: index, Priority: 50, MTU: 1300},
		{Dst: cidr(t, "198.51.101.0/24"), Gw: net.ParseIP("203.0.113.9"), LinkIndex: index, Flags: unix.RTNH_F_ONLINK},
		{Dst: cidr(t, "198.51.102.0/24"), LinkIndex: index, Scope: netlink.SCOPE_LINK},
		{Dst: cidr(t, "198.51.103.0/24"), Type: unix.RTN_BLACKHOLE},
		{Dst: cidr(t, "198.51.104.0/24"), Type: unix.RTN_UNREACHABLE, Priority: 7},
		{Dst: cidr(t, "198.51.105.0/24"), MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: index, Gw: gateway}, {LinkIndex: index, Gw: net.ParseIP("192.0.2.9"), Hops: 2},
		}},
		{Dst: cidr(t, "::/0"), Gw: net.ParseIP("2001:db8::1"), LinkIndex: index},
		{Dst: cidr(t, "2001:db8:1::/48"), Type: unix.RTN_PROHIBIT},
	} {
		must(t, pod.handle.RouteAdd(&r))
	}
	neigh := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("192.0.2.77"), HardwareAddr: podMAC}
	must(t, pod.handle.NeighSet(neigh))
	must(t, pod.handle.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_STALE, IP: net.ParseIP("192.0.2.78"), HardwareAddr: podMAC}))

	const kernel, boot, static, link = unix.RTPROT_KERNEL, unix.RTPROT_BOOT, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK
	want := Snapshot{
		Endpoints: []Endpoint{{Interface: hyperstart.Interface{
			NewDevice: "eth0", MTU: 1400, MAC: podMAC.String(), IPAddresses: []hyperstart.Address{
				{IP: "192.0.2.2", Mask: "24"}, {IP: "192.0.2.3", Mask: "24"}, {IP: "2001:db8::2", Mask: "64"},
			},
		}}},
		Routes: hyperstart.Routes{
			Routes: []hyperstart.Route{
				{Dest: "default", Gateway: "192.0.2.1", Device: "eth0", Protocol: static},
				{Dest: "192.0.2.0/24", Device: "eth0", Source: "192.0.2.2", Scope: link, Protocol: kernel},
				{Dest: "198.51.100.0/24", Gateway: "192.0.2.1", Device: "eth0", Source: "192.0.2.3", Metric: 50, MTU: 1300, Protocol: boot},
				{Dest: "198.51.101.0/24", Gateway: "203.0.113.9", Device: "eth0", OnLink: true, Protocol: boot},
				{Dest: "198.51.102.0/24", Device: "eth0", Scope: link, Protocol: boot},
				{Dest: "198.51.103.0/24", Type: hyperstart.RouteBlackhole, Protocol: boot},
				{Dest: "198.51.104.0/24", Type: hyperstart.RouteUnreachable, Metric: 7, Protocol: boot},
				{Dest: "198.51.105.0/24", Protocol: boot, NextHops: []hyperstart.NextHop{
					{Gateway: "192.0.2.1", Device: "eth0", Weight: 1}, {Gateway: "192.0.2.9", Device: "eth0", Weight: 3},
				}},
				{Dest: "2001:db8::/64", Device: "eth0", Metric: 256, Protocol: kernel},
				{Dest: "2001:db8:1::/48", Type: hyperstart.RouteProhibit, Metric: 1024, Protocol: boot},
				{Dest: "::/0", Gateway: "2001:db8::1", Device: "eth0", Metric: 1024, Protocol: boot},
			},
			Neighbors: []hyperstart.Neighbor{{Device: "eth0", IP: "192.0.2.77", MAC: podMAC.String()}},
		},
	}
	if diff := cmp.Diff(want, scanned(t, pod)); diff != "" {
		t.Errorf("scan (-want +got):\n%s", diff)
	}
}

func TestScanPointToPoint(t *testing.T) {
	far, pod := newNamespace(t), newNamespace(t)
	far.veth(t, pod, 1500)
	eth0 := pod.link(t, "eth0")
	addr := &netlink.Addr{IPNet: cidr(t, "192.0.2.2/32"), Peer: cidr(t, "192.0.2.1/32")}
	must(t, pod.handle.AddrAdd(eth0, addr))
	must(t, pod.handle.LinkSetUp(eth0))
	got := scanned(t, pod).Endpoints[0].Interface.IPAddresses
	if diff := cmp.Diff([]hyperstart.Address{{IP: "192.0.2.2", Mask: "32", Peer: "192.0.2.1"}}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestConvertLeavesOut(t *testing.T) {
	ether := func(index int, name string, flags net.Flags) *netlink.Dummy {
		return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{
			Index: index, Name: name, EncapType: "ether", Flags: flags, HardwareAddr: podMAC, MTU: 1500,
		}}
	}
	loopback := ether(1, "lo", net.FlagUp|net.FlagLoopback)
	loopback.EncapType = "loopback"
	tunnel := ether(3, "tun0", net.FlagUp)
	tunnel.EncapType = "none"
	port := ether(4, "port", net.FlagUp)
	port.MasterIndex = 5
	elsewhere := ether(8, "vrf-port", net.FlagUp)
	elsewhere.MasterIndex = 99 // in another namespace
	blank := ether(9, "blank", net.FlagUp)
	blank.HardwareAddr = make(net.HardwareAddr, 6)
	links := []netlink.Link{
		loopback, ether(2, "down", 0), tunnel, port, ether(5, "br0", net.FlagUp), ether(6, tapPrefix+"0", net.FlagUp), elsewhere, blank,
	}
	addr := func(index int, ip string, flags int) netlink.Addr {
		return netlink.Addr{LinkIndex: index, IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(64, 128)}, Flags: flags}
	}
	s := convert(links, []netlink.Addr{
		addr(5, "2001:db8::1", unix.IFA_F_PERMANENT),
		addr(5, "2001:db8::2", 0), // from a router's announcement
		addr(5, "2001:db8::3", unix.IFA_F_PERMANENT|unix.IFA_F_DADFAILED),
		addr(1, "::1", unix.IFA_F_PERMANENT),
	}, []netlink.Route{
		{Family: netlink.FAMILY_V6, Dst: cidr(t, "::1/128"), LinkIndex: 1, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL},
		{Family: netlink.FAMILY_V6, LinkIndex: 5, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_RA},
		{Family: netlink.FAMILY_V4, LinkIndex: 3, Type: unix.RTN_UNICAST},
		{Family: netlink.FAMILY_V4, MultiPath: []*netlink.NexthopInfo{{LinkIndex: 5}, {LinkIndex: 3}}, Type: unix.RTN_UNICAST},
		{Family: netlink.FAMILY_V4, LinkIndex: 5, Type: unix.RTN_LOCAL},
	}, nil)
	want := Snapshot{
		Endpoints: []Endpoint{
			{Index: 5, Interface: hyperstart.Interface{NewDevice: "br0", MTU: 1500, MAC: podMAC.String(), IPAddresses: []hyperstart.Address{{IP: "2001:db8::1", Mask: "64"}}}},
			{Index: 8, Interface: hyperstart.Interface{NewDevice: "vrf-port", MTU: 1500, MAC: podMAC.String()}},
		},
		Routes: hyperstart.Routes{Routes: []hyperstart.Route{}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("convert (-want +got):\n%s", diff)
	}
}
