package compatnet

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Network is what STARTPOD will say. Its zero value has nothing. It is not safe for
// concurrent use.
type Network struct {
	interfaces []hyperstart.Interface // in the order of the devices
	routes     []hyperstart.Route
}

// SetInterface adds an interface, or changes the one with its MAC address.
func (n *Network) SetInterface(i hyperstart.Interface) {
	known := slices.IndexFunc(n.interfaces, func(o hyperstart.Interface) bool { return o.MAC != "" && o.MAC == i.MAC })
	if known >= 0 {
		n.interfaces[known] = i
		return
	}
	n.interfaces = append(n.interfaces, i)
}

// SetRoutes replaces all routes.
func (n *Network) SetRoutes(routes []hyperstart.Route) { n.routes = routes }

// Request returns what STARTPOD says: IPv4 and plain routes. What is left out
// is named in dropped.
func (n *Network) Request(dialect hyperstart.Dialect) (interfaces []hyperstart.Interface, routes []hyperstart.Route, dropped []string) {
	for index, i := range n.interfaces {
		iface, drop := asDialect(i, index, dialect)
		interfaces = append(interfaces, iface)
		dropped = append(dropped, drop...)
	}
	for _, r := range n.routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue // the guest's kernel adds those itself
		}
		if strings.Contains(r.Dest+r.Gateway, ":") || r.Type != hyperstart.RouteUnicast || len(r.NextHops) > 0 || r.Source != "" || r.OnLink {
			dropped = append(dropped, "route "+r.Dest)
			continue
		}
		routes = append(routes, hyperstart.Route{Dest: r.Dest, Gateway: r.Gateway, Device: r.Device})
	}
	return interfaces, routes, dropped
}

// asDialect names the device as each dialect finds it: the C agents by
// the name that the kernel gives the interfaces in turn, the Go agent by MAC.
func asDialect(from hyperstart.Interface, index int, dialect hyperstart.Dialect) (hyperstart.Interface, []string) {
	var dropped []string
	iface := hyperstart.Interface{MTU: from.MTU, NewDevice: from.NewDevice}
	if dialect == hyperstart.DialectClearGo {
		iface.MAC = from.MAC
	} else {
		iface.Device = fmt.Sprintf("eth%d", index)
		if iface.NewDevice == iface.Device {
			iface.NewDevice = ""
		}
	}
	for _, a := range from.IPAddresses {
		if net.ParseIP(a.IP).To4() == nil || a.Peer != "" {
			if !net.ParseIP(a.IP).IsLinkLocalUnicast() { // the guest adds that one itself
				dropped = append(dropped, "address "+a.IP)
			}
			continue
		}
		iface.IPAddresses = append(iface.IPAddresses, hyperstart.Address{IP: a.IP, Mask: a.Mask})
	}
	return iface, dropped
}
