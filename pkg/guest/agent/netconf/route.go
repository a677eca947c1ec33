package netconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// SetRoutes makes the routes and neighbours those of the request.
func (n *Network) SetRoutes(ctx context.Context, req hyperstart.Routes) error {
	if err := n.acquire(ctx); err != nil {
		return err
	}
	defer n.release()
	links, err := n.links()
	if err != nil {
		return err
	}
	if err := n.setRoutes(links, n.routes.Routes, req.Routes); err != nil {
		return err
	}
	n.routes.Routes = req.Routes
	if err := n.setNeighbors(links, n.routes.Neighbors, req.Neighbors); err != nil {
		return err
	}
	n.routes.Neighbors = req.Neighbors
	return nil
}

// without returns the elements of list that are not in other.
func without[T any](list, other []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool {
		return slices.ContainsFunc(other, func(o T) bool { return reflect.DeepEqual(v, o) })
	})
}

func (n *Network) setRoutes(links links, before, want []hyperstart.Route) error {
	for _, old := range without(before, want) {
		route, err := parseRoute(links, old)
		if err == nil {
			err = n.handle.RouteDel(&route)
		}
		// It went with its interface or address, or a container removed it.
		if err != nil && !isMissing(err) {
			return fmt.Errorf("remove route %s: %w", old.Dest, err)
		}
	}
	// A gateway must be reachable when its route is added, but the list has no
	// order of that kind. Each round can make more of them reachable.
	//
	// All are added, not only the new ones: one can have been removed with its
	// interface or its source address, and they have come back.
	pending := want
	for len(pending) > 0 {
		rest, err := n.addRoutes(links, pending)
		if len(rest) == 0 {
			return nil
		}
		if len(rest) == len(pending) && !isUnreachable(err) {
			return err
		}
		if len(rest) == len(pending) {
			return n.addOnLink(links, rest)
		}
		pending = rest
	}
	return nil
}

// addOnLink adds routes whose gateway no route leads to. The kernel forbids
// that only when a route is added, so the pod can have such routes: those whose
// gateway was reachable once.
func (n *Network) addOnLink(links links, routes []hyperstart.Route) error {
	for _, r := range routes {
		route, err := parseRoute(links, r)
		if err == nil {
			err = n.handle.RouteDel(&route) // it may be there
		}
		if err == nil || isMissing(err) {
			route.Flags |= unix.RTNH_F_ONLINK
			for _, hop := range route.MultiPath {
				hop.Flags |= unix.RTNH_F_ONLINK
			}
			err = n.handle.RouteAppend(&route)
		}
		if err != nil {
			return fmt.Errorf("add route %s via %q dev %q: %w", r.Dest, r.Gateway, r.Device, err)
		}
	}
	return nil
}

func isUnreachable(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH)
}

func isMissing(err error) bool {
	return errors.Is(err, errNoLink) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// addRoutes adds what can be added and returns the others, with the first
// error. Routes to one destination with one metric can exist beside each other,
// such as those of link-local addresses.
func (n *Network) addRoutes(links links, routes []hyperstart.Route) (rest []hyperstart.Route, first error) {
	for _, r := range routes {
		route, err := parseRoute(links, r)
		if err == nil {
			err = n.handle.RouteAppend(&route)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			rest = append(rest, r)
			first = firstErr(first, fmt.Errorf("add route %s via %q dev %q: %w", r.Dest, r.Gateway, r.Device, err))
		}
	}
	return rest, first
}

// firstErr returns the first error that is not nil.
func firstErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func parseRoute(links links, r hyperstart.Route) (netlink.Route, error) {
	kind, ok := r.Type.Number()
	if !ok {
		return netlink.Route{}, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "unknown type %q", r.Type)
	}
	dst, err := parseDestination(r.Dest)
	if err != nil {
		return netlink.Route{}, err
	}
	out := netlink.Route{
		Dst: dst, Type: kind, Priority: r.Metric, Scope: netlink.Scope(r.Scope), Protocol: netlink.RouteProtocol(r.Protocol),
		Tos: r.TOS, MTU: r.MTU, AdvMSS: r.AdvMSS, Table: unix.RT_TABLE_MAIN,
	}
	if r.OnLink {
		out.Flags = unix.RTNH_F_ONLINK
	}
	if r.Source != "" {
		if out.Src, err = parseIP(r.Source); err != nil {
			return netlink.Route{}, err
		}
	}
	if out.Gw, out.Via, err = parseGateway(dst, r.Gateway); err != nil {
		return netlink.Route{}, err
	}
	if r.Device != "" {
		if out.LinkIndex, err = links.index(r.Device); err != nil {
			return netlink.Route{}, err
		}
	}
	for _, hop := range r.NextHops {
		h, err := parseNextHop(links, dst, hop)
		if err != nil {
			return netlink.Route{}, err
		}
		out.MultiPath = append(out.MultiPath, h)
	}
	return out, nil
}

func parseNextHop(links links, dst *net.IPNet, hop hyperstart.NextHop) (*netlink.NexthopInfo, error) {
	index, err := links.index(hop.Device)
	if err != nil {
		return nil, err
	}
	out := &netlink.NexthopInfo{LinkIndex: index, Hops: max(hop.Weight-1, 0)}
	if hop.OnLink {
		out.Flags = unix.RTNH_F_ONLINK
	}
	out.Gw, out.Via, err = parseGateway(dst, hop.Gateway)
	return out, err
}

// links has the indexes of interfaces by name.
type links map[string]int

func (n *Network) links() (links, error) {
	list, err := n.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byName := make(links)
	for _, link := range list {
		byName[link.Attrs().Name] = link.Attrs().Index
	}
	return byName, nil
}

var errNoLink = errors.New("no such interface")

func (l links) index(name string) (int, error) {
	index, ok := l[name]
	if !ok {
		return 0, fmt.Errorf("%w: %s", errNoLink, name)
	}
	return index, nil
}

func parseDestination(dest string) (*net.IPNet, error) {
	if dest == "default" {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, nil
	}
	_, dst, err := net.ParseCIDR(dest)
	if err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "destination: %w", err)
	}
	return dst, nil
}

// parseGateway returns the next hop in the form that the kernel wants: an IPv4
// route can lead through an IPv6 neighbour.
func parseGateway(dst *net.IPNet, gateway string) (net.IP, netlink.Destination, error) {
	if gateway == "" {
		return nil, nil, nil
	}
	ip, err := parseIP(gateway)
	if err != nil {
		return nil, nil, err
	}
	if dst.IP.To4() != nil && ip.To4() == nil {
		return nil, &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: ip}, nil
	}
	return ip, nil, nil
}

func parseIP(s string) (net.IP, error) {
	if ip := net.ParseIP(s); ip != nil {
		return ip, nil
	}
	return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "%q is not an address", s)
}

func (n *Network) setNeighbors(links links, before, want []hyperstart.Neighbor) error {
	for _, old := range without(before, want) {
		neigh, err := parseNeighbor(links, old)
		if err == nil {
			err = n.handle.NeighDel(neigh)
		}
		if err != nil && !isMissing(err) {
			return fmt.Errorf("remove neighbour %s: %w", old.IP, err)
		}
	}
	for _, added := range want {
		neigh, err := parseNeighbor(links, added)
		if err == nil {
			err = n.handle.NeighSet(neigh)
		}
		if err != nil {
			return fmt.Errorf("add neighbour %s: %w", added.IP, err)
		}
	}
	return nil
}

func parseNeighbor(links links, n hyperstart.Neighbor) (*netlink.Neigh, error) {
	index, err := links.index(n.Device)
	if err != nil {
		return nil, err
	}
	ip, err := parseIP(n.IP)
	if err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "mac: %w", err)
	}
	return &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: ip, HardwareAddr: mac}, nil
}
