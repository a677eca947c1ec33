package agent

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

// setupRoute makes the routes and neighbours those of the request.
func (a *Agent) setupRoute(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := decode[hyperstart.Routes](payload)
	if err != nil {
		return nil, err
	}
	if err := a.networkReady(ctx); err != nil {
		return nil, err
	}
	a.network.mu.Lock()
	defer a.network.mu.Unlock()
	if err := setRoutes(a.network.routes.Routes, req.Routes); err != nil {
		return nil, err
	}
	a.network.routes.Routes = req.Routes
	if err := setNeighbors(a.network.routes.Neighbors, req.Neighbors); err != nil {
		return nil, err
	}
	a.network.routes.Neighbors = req.Neighbors
	return nil, nil
}

// without returns the elements of list that are not in other.
func without[T any](list, other []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool {
		return slices.ContainsFunc(other, func(o T) bool { return reflect.DeepEqual(v, o) })
	})
}

func setRoutes(before, want []hyperstart.Route) error {
	for _, old := range without(before, want) {
		route, err := parseRoute(old)
		if err == nil {
			err = netlink.RouteDel(&route)
		}
		// It went with its interface or address, or a container removed it.
		if err != nil && !isMissing(err) {
			return fmt.Errorf("remove route %s: %w", old.Dest, err)
		}
	}
	// A gateway must be reachable when its route is added, but the list has no
	// order of that kind. Each round can make more of them reachable.
	//
	// All are added, not only the new ones: one can have gone with its
	// interface or its source address, and they have come back.
	pending := want
	for len(pending) > 0 {
		rest, err := addRoutes(pending, before)
		if len(rest) == len(pending) {
			return err
		}
		pending = rest
	}
	return nil
}

func isMissing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// addRoutes adds what can be added and returns the others, with the first
// error. Where there is a route already it takes its place, unless that is the
// one of before.
func addRoutes(routes, before []hyperstart.Route) (rest []hyperstart.Route, first error) {
	for _, r := range routes {
		route, err := parseRoute(r)
		if err == nil {
			err = netlink.RouteAdd(&route)
		}
		if errors.Is(err, unix.EEXIST) {
			err = nil
			if len(without([]hyperstart.Route{r}, before)) > 0 {
				err = netlink.RouteReplace(&route)
			}
		}
		if err != nil {
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

var routeTypes = map[hyperstart.RouteType]int{
	hyperstart.RouteUnicast:     unix.RTN_UNICAST,
	hyperstart.RouteBlackhole:   unix.RTN_BLACKHOLE,
	hyperstart.RouteUnreachable: unix.RTN_UNREACHABLE,
	hyperstart.RouteProhibit:    unix.RTN_PROHIBIT,
	hyperstart.RouteThrow:       unix.RTN_THROW,
}

func parseRoute(r hyperstart.Route) (netlink.Route, error) {
	kind, ok := routeTypes[r.Type]
	if !ok {
		return netlink.Route{}, failf(hyperstart.ClassInvalidArgument, "unknown type %q", r.Type)
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
		if out.LinkIndex, err = linkIndex(r.Device); err != nil {
			return netlink.Route{}, err
		}
	}
	for _, hop := range r.NextHops {
		h, err := parseNextHop(dst, hop)
		if err != nil {
			return netlink.Route{}, err
		}
		out.MultiPath = append(out.MultiPath, h)
	}
	return out, nil
}

func parseNextHop(dst *net.IPNet, hop hyperstart.NextHop) (*netlink.NexthopInfo, error) {
	index, err := linkIndex(hop.Device)
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

func linkIndex(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	return link.Attrs().Index, nil
}

func parseDestination(dest string) (*net.IPNet, error) {
	if dest == "default" {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, nil
	}
	_, dst, err := net.ParseCIDR(dest)
	if err != nil {
		return nil, failf(hyperstart.ClassInvalidArgument, "destination: %w", err)
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
	return nil, failf(hyperstart.ClassInvalidArgument, "%q is not an address", s)
}

func setNeighbors(before, want []hyperstart.Neighbor) error {
	for _, old := range without(before, want) {
		neigh, err := parseNeighbor(old)
		if err == nil {
			err = netlink.NeighDel(neigh)
		}
		if err != nil && !isMissing(err) {
			return fmt.Errorf("remove neighbour %s: %w", old.IP, err)
		}
	}
	for _, n := range without(want, before) {
		neigh, err := parseNeighbor(n)
		if err == nil {
			err = netlink.NeighSet(neigh)
		}
		if err != nil {
			return fmt.Errorf("add neighbour %s: %w", n.IP, err)
		}
	}
	return nil
}

func parseNeighbor(n hyperstart.Neighbor) (*netlink.Neigh, error) {
	index, err := linkIndex(n.Device)
	if err != nil {
		return nil, err
	}
	ip, err := parseIP(n.IP)
	if err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return nil, failf(hyperstart.ClassInvalidArgument, "mac: %w", err)
	}
	return &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: ip, HardwareAddr: mac}, nil
}
