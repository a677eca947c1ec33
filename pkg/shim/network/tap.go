package network

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// tapPrefix distinguishes our taps from the pod's links. The kernel adds
	// a number. cAdvisor, and so the kubelet, leaves links out of a pod's
	// statistics whose names begin with veth: a tap would count each frame of
	// its link a second time. CNI plugins make names of veth and hex digits.
	tapPrefix = "vethccv2tap"
	// olderPrefix is what they were called before: a dead shim may have left one.
	olderPrefix = "ccv2tap"
	// filterPriority marks our filters. It leaves room for filters of others
	// before and after.
	filterPriority = 0xcc2
)

// Connect makes a tap for an endpoint and couples the two. The tap lives as
// long as a descriptor of it: once the VMM has one, the file can be closed.
func (n *Namespace) Connect(e Endpoint) (*os.File, error) {
	file, err := n.connect(e)
	if err != nil {
		return nil, fmt.Errorf("connect %s of network namespace %s: %w", e.Interface.NewDevice, n.name(), err)
	}
	return file, nil
}

func (n *Namespace) connect(e Endpoint) (_ *os.File, err error) {
	tap, link, err := n.tap(e.Interface.MTU)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Disconnect(e.Index), tap.Close())
		}
	}()
	name := link.Attrs().Name
	index := link.Attrs().Index
	if err := n.redirect(index, e.Index); err != nil {
		return nil, fmt.Errorf("redirect from tap %s: %w", name, err)
	}
	if err := n.redirect(e.Index, index); err != nil {
		return nil, fmt.Errorf("redirect to tap %s: %w", name, err)
	}
	return tap, nil
}

// Tap makes a tap that is coupled to nothing, for frames of mtu bytes. It lives as those
// of [Namespace.Connect] do.
func (n *Namespace) Tap(mtu int) (*os.File, error) {
	file, _, err := n.tap(mtu)
	if err != nil {
		return nil, fmt.Errorf("make a tap in network namespace %s: %w", n.name(), err)
	}
	return file, nil
}

// tap makes a tap that carries frames.
func (n *Namespace) tap(mtu int) (tap *os.File, link netlink.Link, err error) {
	var name string
	err = n.do(func() (err error) {
		tap, name, err = openTap()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if link, err = n.handle.LinkByName(name); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("find tap %s: %w", name, err), tap.Close())
	}
	if err := n.tapUp(link, mtu); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("set up tap %s: %w", name, err), tap.Close())
	}
	return tap, link, nil
}

// VhostDevice is the host kernel's own way from a tap to a VM.
const VhostDevice = "/dev/vhost-net"

// OpenVhost opens a [VhostDevice], which is for one tap.
func OpenVhost(device string) (*os.File, error) {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open vhost-net: %w", err)
	}
	return file, nil
}

// openTap makes a tap in the namespace of the calling thread.
func openTap() (*os.File, string, error) {
	const device = "/dev/net/tun"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open tap: %w", &os.PathError{Op: "open", Path: device, Err: err})
	}
	file := os.NewFile(uintptr(fd), device)
	req, err := unix.NewIfreq(tapPrefix + "%d")
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("make tap: %w", err), file.Close())
	}
	return file, req.Name(), nil
}

// tapUp makes the tap carry frames. The namespace's stack must not speak on
// it, least of all to the guest: no link-local address, no ARP.
func (n *Namespace) tapUp(link netlink.Link, mtu int) error {
	const genModeNone = 1
	err := n.handle.LinkSetIP6AddrGenMode(link, genModeNone)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) { // no IPv6 at all
		return fmt.Errorf("turn link-local address off: %w", err)
	}
	if err := n.handle.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("turn ARP off: %w", err)
	}
	if err := n.handle.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set mtu %d: %w", mtu, err)
	}
	if err := n.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

// redirect sends out of link to whatever arrives at link from. What an earlier
// sandbox left of this is replaced.
func (n *Namespace) redirect(from, to int) error {
	qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: from, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}
	if err := n.handle.QdiscAdd(qdisc); err != nil {
		if !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add ingress qdisc: %w", err)
		}
		if err := n.removeFilter(from); err != nil { // the qdisc may be another program's
			return err
		}
	}
	filter := &netlink.U32{
		FilterAttrs: filterAttrs(from),
		Actions:     []netlink.Action{netlink.NewMirredAction(to)},
	}
	if err := n.handle.FilterAdd(filter); err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

func filterAttrs(link int) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: link, Parent: netlink.HANDLE_MIN_INGRESS, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
	}
}

// removeFilter removes our filters of a link. None, or no such link, is not an error.
func (n *Namespace) removeFilter(link int) error {
	err := n.handle.FilterDel(&netlink.U32{FilterAttrs: filterAttrs(link)})
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove filter: %w", err)
	}
	return nil
}

func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

// Disconnect releases the link with an index to the namespace. A link that is
// gone is not an error.
func (n *Namespace) Disconnect(index int) error {
	link, err := n.handle.LinkByIndex(index)
	if err != nil {
		var notFound netlink.LinkNotFoundError
		if errors.As(err, &notFound) || isGone(err) {
			return nil
		}
		return fmt.Errorf("find link %d: %w", index, err)
	}
	if err := n.removeFilter(index); err != nil {
		return err
	}
	qdiscs, err := n.handle.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list qdiscs of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range qdiscs {
		// One with filters of other programs is theirs.
		filters, err := n.handle.FilterList(link, netlink.HANDLE_MIN_INGRESS)
		if _, ok := q.(*netlink.Ingress); !ok || err != nil || len(filters) > 0 {
			continue
		}
		if err := n.handle.QdiscDel(q); err != nil && !isGone(err) {
			return fmt.Errorf("remove ingress qdisc of %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}
