package netconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// deviceDeadline bounds the wait for an interface's hot-plugged device.
const deviceDeadline = 10 * time.Second

// SetInterface gives an interface its name, MTU and addresses. It waits for the
// interface's device, and other commands run meanwhile.
func (n *Network) SetInterface(ctx context.Context, req hyperstart.Interface) error {
	device, err := deviceOf(req)
	if err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "set up interface %s: %w", req.NewDevice, err)
	}
	addrs, err := parseAddresses(req.IPAddresses)
	if err != nil {
		return fmt.Errorf("set up interface %s: %w", req.NewDevice, err)
	}
	waitCtx, cancel := context.WithTimeout(ctx, deviceDeadline)
	defer cancel()
	err = n.devices.Wait(waitCtx, func() (bool, error) {
		if err := n.acquire(waitCtx); err != nil {
			return false, err
		}
		defer n.release()
		link, err := n.find(device, req.NewDevice)
		if link == nil || err != nil {
			return false, err
		}
		return true, n.configure(link, req, addrs)
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = hyperstart.Errorf(hyperstart.ClassUnavailable, "no device with %s after %v", device, deviceDeadline)
	}
	if err != nil {
		return fmt.Errorf("set up interface %s: %w", req.NewDevice, err)
	}
	return nil
}

// device tells an interface from others: by its MAC or, as some original hosts do, by the name
// that the kernel has given it.
type device struct {
	mac  net.HardwareAddr
	name string // without a MAC
}

func deviceOf(req hyperstart.Interface) (d device, err error) {
	if req.NewDevice == "" {
		return d, errors.New("it has no name")
	}
	if req.MAC != "" {
		d.mac, err = net.ParseMAC(req.MAC)
		return d, err
	}
	if d.name = req.Device; d.name == "" {
		d.name = req.NewDevice
	}
	return d, nil
}

func (d device) is(link *netlink.LinkAttrs) bool {
	if d.mac == nil {
		return link.Name == d.name
	}
	return link.HardwareAddr.String() == d.mac.String()
}

// String implements fmt.Stringer, for errors.
func (d device) String() string {
	if d.mac == nil {
		return "name " + d.name
	}
	return "MAC " + d.mac.String()
}

// find returns the interface that a request is about: one that it set up before,
// or a new one. It returns nil as long as the kernel has not found the device.
func (n *Network) find(d device, name string) (netlink.Link, error) {
	links, err := n.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	n.dropUnplugged(links)
	return n.choose(links, d, name), nil
}

// configure does what the request says; addrs are its addresses.
func (n *Network) configure(link netlink.Link, req hyperstart.Interface, addrs []netlink.Addr) error {
	before, known := n.interfaces[link.Attrs().Index]
	if !known {
		if err := n.prepareLink(link, req); err != nil {
			return err
		}
	}
	if req.MTU != 0 && req.MTU != link.Attrs().MTU {
		if err := n.handle.LinkSetMTU(link, req.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", req.MTU, err)
		}
	}
	if err := n.setAddresses(link, before.IPAddresses, addrs, req.IPAddresses); err != nil {
		return err
	}
	n.interfaces[link.Attrs().Index] = req
	return n.handle.LinkSetUp(link)
}

// dropUnplugged drops interfaces whose device is not there any more.
func (n *Network) dropUnplugged(links []netlink.Link) {
	for index := range n.interfaces {
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == index }) {
			delete(n.interfaces, index)
		}
	}
}

// choose returns the device's link that has the name already by an earlier
// request, or one that no request was about. Several links can have one MAC.
func (n *Network) choose(links []netlink.Link, d device, name string) (fresh netlink.Link) {
	for _, link := range links {
		known, ok := n.interfaces[link.Attrs().Index]
		if ok && known.NewDevice == name && (d.mac == nil || d.is(link.Attrs())) {
			return link
		}
		if !ok && fresh == nil && d.is(link.Attrs()) {
			fresh = link
		}
	}
	return fresh
}

// prepareLink does what can be done only before a link is up.
func (n *Network) prepareLink(link netlink.Link, req hyperstart.Interface) error {
	if err := n.rename(link, req.NewDevice); err != nil {
		return err
	}
	if req.NoARP {
		if err := n.handle.LinkSetARPOff(link); err != nil {
			return fmt.Errorf("turn ARP off: %w", err)
		}
	}
	// The host names the link-local address as well, so that both have the same.
	const genModeNone = 1
	if err := n.handle.LinkSetIP6AddrGenMode(link, genModeNone); err != nil {
		console.Logf("interface %s: turn link-local address off: %v", req.NewDevice, err) // a kernel without IPv6
	}
	return nil
}

// rename gives a link its name. Another one that has it is new as well, or it
// would be the one that was asked for: the kernel has named it, and it gets its
// name when its turn comes.
func (n *Network) rename(link netlink.Link, name string) error {
	if link.Attrs().Name == name {
		return nil
	}
	if other, err := n.handle.LinkByName(name); err == nil {
		if err := n.handle.LinkSetName(other, fmt.Sprintf("ccv2-%d", other.Attrs().Index)); err != nil {
			return fmt.Errorf("free the name: %w", err)
		}
	}
	if err := n.handle.LinkSetName(link, name); err != nil {
		return fmt.Errorf("rename %s: %w", link.Attrs().Name, err)
	}
	return nil
}

func parseAddresses(list []hyperstart.Address) ([]netlink.Addr, error) {
	addrs := make([]netlink.Addr, 0, len(list))
	for _, a := range list {
		addr, err := parseAddress(a)
		if err != nil {
			return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "address %s/%s: %w", a.IP, a.Mask, err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// parseAddress sets the flags of an address that is in use already: it is not
// probed for, and its prefix gets no route but those that the host names.
func parseAddress(a hyperstart.Address) (netlink.Addr, error) {
	ip, err := parsePrefix(a.IP, a.Mask)
	if err != nil {
		return netlink.Addr{}, err
	}
	addr := netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NOPREFIXROUTE}
	if ip.IP.To4() == nil {
		addr.Flags |= unix.IFA_F_NODAD
	}
	if ip.IP.IsLinkLocalUnicast() {
		addr.Scope = int(netlink.SCOPE_LINK)
	}
	if a.Peer != "" {
		if addr.Peer, err = parsePrefix(a.Peer, a.Mask); err != nil {
			return netlink.Addr{}, err
		}
	}
	return addr, nil
}

func parsePrefix(address, length string) (*net.IPNet, error) {
	ip := net.ParseIP(address)
	if ip == nil {
		return nil, fmt.Errorf("%q is not an address", address)
	}
	bits := 8 * net.IPv6len
	if v4 := ip.To4(); v4 != nil {
		ip, bits = v4, 8*net.IPv4len
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n > bits {
		return nil, fmt.Errorf("%q is not a prefix length", length)
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(n, bits)}, nil
}

// setAddresses gives a link its addresses and removes those of an earlier
// request. want and addrs are the same list. All are added, not only the new
// ones: the kernel removes secondary addresses together with the primary one.
func (n *Network) setAddresses(link netlink.Link, before []hyperstart.Address, addrs []netlink.Addr, want []hyperstart.Address) error {
	for _, old := range before {
		if slices.Contains(want, old) {
			continue
		}
		addr, err := parseAddress(old)
		if err != nil {
			return err
		}
		if err := n.handle.AddrDel(link, &addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", addr.IPNet, err)
		}
	}
	for i := range addrs {
		if err := n.handle.AddrReplace(link, &addrs[i]); err != nil {
			return fmt.Errorf("add address %s: %w", addrs[i].IPNet, err)
		}
	}
	return nil
}
