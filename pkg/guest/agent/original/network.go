package original

import (
	"net"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Routes returns all routes of a pod: what its STARTPOD names, and those to the networks of
// its interfaces, which the guest of an original dialect has by itself.
func Routes(interfaces []hyperstart.Interface, named []hyperstart.Route) hyperstart.Routes {
	var all []hyperstart.Route
	for _, i := range interfaces {
		name := i.NewDevice
		if name == "" {
			name = i.Device
		}
		for _, a := range i.IPAddresses {
			if dest := networkOf(a); dest != "" {
				all = append(all, hyperstart.Route{
					Dest: dest, Device: name, Source: a.IP, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_KERNEL,
				})
			}
		}
	}
	for _, r := range named {
		same := func(o hyperstart.Route) bool { return o.Dest == r.Dest && o.Device == r.Device && r.Gateway == "" }
		if !slices.ContainsFunc(all, same) {
			all = append(all, r)
		}
	}
	return hyperstart.Routes{Routes: all}
}

// networkOf is the network of an address, "" when it has none but itself. The mask is a
// prefix length, or four numbers.
func networkOf(a hyperstart.Address) string {
	ip := net.ParseIP(a.IP).To4()
	bits := PrefixLength(a.Mask)
	n, err := strconv.Atoi(bits)
	if ip == nil || err != nil || n <= 0 || n >= 32 {
		return ""
	}
	return (&net.IPNet{IP: ip.Mask(net.CIDRMask(n, 32)), Mask: net.CIDRMask(n, 32)}).String()
}

// PrefixLength returns a mask as a prefix length in decimal: it may be four numbers. What is
// neither is returned as it is.
func PrefixLength(mask string) string {
	if ip := net.ParseIP(mask).To4(); ip != nil {
		if ones, bits := net.IPMask(ip).Size(); bits > 0 { // else it has holes
			return strconv.Itoa(ones)
		}
	}
	return mask
}
