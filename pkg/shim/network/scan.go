package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Endpoint is a link of the namespace that the guest is to have.
type Endpoint struct {
	Index     int // of the link in the namespace
	Interface hyperstart.Interface
}

// Snapshot is what the guest is to have of a namespace.
type Snapshot struct {
	Endpoints []Endpoint // in the order in which the links were made
	Routes    hyperstart.Routes
}

// dumpTries bounds how often a dump is repeated that the kernel calls
// inconsistent because something changed meanwhile.
const dumpTries = 10

// Scan reads the namespace.
func (n *Namespace) Scan() (Snapshot, error) {
	for try := 1; ; try++ {
		s, err := n.scan()
		switch {
		case err == nil:
			return s, nil
		case try < dumpTries && errors.Is(err, netlink.ErrDumpInterrupted):
		default:
			return Snapshot{}, fmt.Errorf("scan network namespace %s: %w", n.name(), err)
		}
	}
}

func (n *Namespace) scan() (Snapshot, error) {
	links, err := n.handle.LinkList()
	if err != nil {
		return Snapshot{}, fmt.Errorf("list links: %w", err)
	}
	addrs, err := n.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list addresses: %w", err)
	}
	var routes []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := n.handle.RouteListFiltered(family, &netlink.Route{}, 0)
		if err != nil {
			return Snapshot{}, fmt.Errorf("list routes: %w", err)
		}
		routes = append(routes, list...)
	}
	neighs, err := n.handle.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list neighbours: %w", err)
	}
	return convert(links, addrs, routes, neighs), nil
}

// convert is Scan without the kernel.
func convert(links []netlink.Link, addrs []netlink.Addr, routes []netlink.Route, neighs []netlink.Neigh) Snapshot {
	var s Snapshot
	names := make(map[int]string) // of endpoints
	for _, link := range links {
		if !isEndpoint(link, links) {
			continue
		}
		a := link.Attrs()
		names[a.Index] = a.Name
		s.Endpoints = append(s.Endpoints, Endpoint{Index: a.Index, Interface: hyperstart.Interface{
			NewDevice:   a.Name,
			IPAddresses: addressesOf(a.Index, addrs),
			MTU:         a.MTU,
			MAC:         a.HardwareAddr.String(),
			NoARP:       a.RawFlags&unix.IFF_NOARP != 0,
		}})
	}
	s.Routes.Routes = []hyperstart.Route{} // never null: original guests refuse that
	for _, r := range routes {
		if route, ok := convertRoute(r, names); ok {
			s.Routes.Routes = append(s.Routes.Routes, route)
		}
	}
	for _, neigh := range neighs {
		name, ok := names[neigh.LinkIndex]
		if ok && neigh.State&netlink.NUD_PERMANENT != 0 && neigh.Flags&netlink.NTF_PROXY == 0 && len(neigh.HardwareAddr) != 0 {
			s.Routes.Neighbors = append(s.Routes.Neighbors, hyperstart.Neighbor{
				Device: name, IP: neigh.IP.String(), MAC: neigh.HardwareAddr.String(),
			})
		}
	}
	return s
}

// isEndpoint reports whether the guest is to have the link. Its kind does not
// matter, only that frames go through it: it is up, is Ethernet, and is not
// part of another link, which gets its frames. A link that is down carries
// nothing, like the fallback devices that tunnel modules put into every
// namespace.
func isEndpoint(link netlink.Link, links []netlink.Link) bool {
	a := link.Attrs()
	if a.Flags&net.FlagUp == 0 || a.EncapType != "ether" || strings.HasPrefix(a.Name, tapPrefix) || strings.HasPrefix(a.Name, olderPrefix) {
		return false
	}
	if len(a.HardwareAddr) != 6 || bytes.Equal(a.HardwareAddr, make([]byte, 6)) {
		return false
	}
	for _, other := range links {
		if a.MasterIndex != 0 && other.Attrs().Index == a.MasterIndex {
			return false
		}
	}
	return true
}

// addressesOf returns the addresses that a link was given. Those that
// it made itself from a router's announcement have a lifetime; the guest hears
// the announcements instead and makes them too.
func addressesOf(index int, addrs []netlink.Addr) []hyperstart.Address {
	var list []hyperstart.Address
	for _, a := range addrs {
		if a.LinkIndex != index || a.Flags&unix.IFA_F_PERMANENT == 0 || a.Flags&unix.IFA_F_DADFAILED != 0 {
			continue
		}
		mask, peer := a.Mask, ""
		if a.Peer != nil {
			mask, peer = a.Peer.Mask, a.Peer.IP.String()
		}
		length, _ := mask.Size()
		list = append(list, hyperstart.Address{IP: a.IP.String(), Mask: fmt.Sprint(length), Peer: peer})
	}
	return list
}

// convertRoute returns false for a route that the guest cannot or must not
// have: through a link that it does not have, or one that its kernel makes by
// itself from what it hears.
func convertRoute(r netlink.Route, names map[int]string) (hyperstart.Route, bool) {
	kind, known := hyperstart.RouteTypeOf(r.Type)
	if !known || r.Protocol == unix.RTPROT_RA || r.Protocol == unix.RTPROT_REDIRECT {
		return hyperstart.Route{}, false
	}
	out := hyperstart.Route{
		Dest: destination(r), Type: kind, Metric: r.Priority, Scope: int(r.Scope), Protocol: int(r.Protocol),
		TOS: r.Tos, OnLink: r.Flags&unix.RTNH_F_ONLINK != 0, MTU: r.MTU, AdvMSS: r.AdvMSS,
		Gateway: ipString(r.Gw), Source: ipString(r.Src),
	}
	if via, ok := r.Via.(*netlink.Via); ok { // an IPv4 route through an IPv6 neighbour
		out.Gateway = ipString(via.Addr)
	}
	if kind != hyperstart.RouteUnicast {
		return out, true // it has no device, or lo
	}
	for _, hop := range r.MultiPath {
		name, ok := names[hop.LinkIndex]
		if !ok {
			return hyperstart.Route{}, false
		}
		out.NextHops = append(out.NextHops, hyperstart.NextHop{
			Gateway: ipString(hop.Gw), Device: name, Weight: hop.Hops + 1, OnLink: hop.Flags&unix.RTNH_F_ONLINK != 0,
		})
	}
	if len(out.NextHops) > 0 {
		return out, true
	}
	var ok bool
	out.Device, ok = names[r.LinkIndex]
	return out, ok
}

func destination(r netlink.Route) string {
	if r.Dst != nil {
		if length, _ := r.Dst.Mask.Size(); length > 0 || r.Family == netlink.FAMILY_V6 {
			return r.Dst.String()
		}
	}
	if r.Family == netlink.FAMILY_V6 {
		return "::/0"
	}
	return "default"
}

func ipString(ip net.IP) string {
	if len(ip) == 0 {
		return ""
	}
	return ip.String()
}
