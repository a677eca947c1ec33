package netconf

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
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

// TestInterfaceByName: a host that gives no MAC means the name that the kernel has given.
func TestInterfaceByName(t *testing.T) {
	n := newGuestNetwork(t)
	address := []hyperstart.Address{{IP: "192.0.2.2", Mask: "24"}}
	n.setInterface(t, hyperstart.Interface{Device: "eth1", NewDevice: "net0", IPAddresses: address})
	n.setInterface(t, hyperstart.Interface{NewDevice: "eth0", MTU: 1400})
	n.setInterface(t, hyperstart.Interface{Device: "eth1", NewDevice: "net0", IPAddresses: address}) // it is known by its new name
	for name, mac := range map[string]net.HardwareAddr{"net0": macOf(0x11), "eth0": macOf(0x10)} {
		link, err := n.handle.LinkByName(name)
		if err != nil || link.Attrs().HardwareAddr.String() != mac.String() || link.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("%s: %+v, %v", name, link, err)
		}
	}
	if got := n.shown(t, "net0"); !slices.Contains(got, "192.0.2.2/24") {
		t.Errorf("addresses %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.SetInterface(ctx, hyperstart.Interface{Device: "eth7", NewDevice: "eth7"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a name that no device has: %v", err)
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
		"no name":     {MAC: mac},
		"bad MAC":     {NewDevice: "eth0", MAC: "nonsense"},
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
