package sandbox

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// legacyNetwork makes the interfaces and routes of STARTPOD for an original
// guest, which knows IPv4 and plain routes. What is left out is named in
// dropped.
func legacyNetwork(links []hyperstart.Interface, routes []hyperstart.Route, dialect hyperstart.Dialect) (list []hyperstart.Interface, out []hyperstart.Route, dropped []string) {
	for i, link := range links {
		iface, drop := legacyInterface(link, i, dialect)
		list = append(list, iface)
		dropped = append(dropped, drop...)
	}
	for _, r := range routes {
		const protoKernel = 2 // the guest's kernel makes those itself
		if r.Protocol == protoKernel {
			continue
		}
		if strings.Contains(r.Dest+r.Gateway, ":") || r.Type != hyperstart.RouteUnicast || len(r.NextHops) > 0 || r.Source != "" || r.OnLink {
			dropped = append(dropped, "route "+r.Dest)
			continue
		}
		out = append(out, hyperstart.Route{Dest: r.Dest, Gateway: r.Gateway, Device: r.Device})
	}
	return list, out, dropped
}

// legacyInterface names the device as each dialect finds it: the C agents by
// the name that the kernel gives the interfaces in turn, the Go agent by MAC.
func legacyInterface(link hyperstart.Interface, i int, dialect hyperstart.Dialect) (hyperstart.Interface, []string) {
	var dropped []string
	iface := hyperstart.Interface{MTU: link.MTU, NewDevice: link.NewDevice}
	if dialect == hyperstart.DialectClearGo {
		iface.MAC = link.MAC
	} else {
		iface.Device = fmt.Sprintf("eth%d", i)
		if iface.NewDevice == iface.Device {
			iface.NewDevice = ""
		}
	}
	for _, a := range link.IPAddresses {
		if net.ParseIP(a.IP).To4() == nil || a.Peer != "" {
			if !net.ParseIP(a.IP).IsLinkLocalUnicast() { // the guest makes that one itself
				dropped = append(dropped, "address "+a.IP)
			}
			continue
		}
		iface.IPAddresses = append(iface.IPAddresses, hyperstart.Address{IP: a.IP, Mask: a.Mask})
	}
	return iface, dropped
}

// addLegacyNetwork adds the network to the STARTPOD of an original guest.
func (s *Sandbox) addLegacyNetwork(ctx context.Context, request *hyperstart.StartPodRequest) {
	if s.dialect == hyperstart.DialectCCv2 {
		return
	}
	var dropped []string
	request.Interfaces, request.Routes, dropped = legacyNetwork(s.guestNetwork.interfaces, s.guestNetwork.routes.Routes, s.dialect)
	if len(dropped) > 0 {
		log.G(ctx).WithField("sandbox", s.opts.ID).Warnf("a guest of dialect %s cannot have: %s", s.dialect, strings.Join(dropped, ", "))
	}
}
