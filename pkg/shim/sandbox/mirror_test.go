package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// plugs records what is plugged into a VM, and what it is told.
type plugs struct {
	hypervisor.VM

	list []string
	fail error
}

func (p *plugs) Plug(_ context.Context, d hypervisor.Device) error {
	if nic, ok := d.(hypervisor.NetDevice); ok && p.fail == nil {
		p.list = append(p.list, fmt.Sprintf("plug %s %s %d", nic.ID, nic.MAC, nic.MTU))
	}
	return p.fail
}

func (p *plugs) Unplug(_ context.Context, id string) error {
	p.list = append(p.list, "unplug "+id)
	return p.fail
}

func (p *plugs) call(name string, data any) error {
	switch d := data.(type) {
	case hyperstart.Interface:
		p.list = append(p.list, fmt.Sprintf("%s %s %d", name, d.NewDevice, len(d.IPAddresses)))
	case hyperstart.Routes:
		p.list = append(p.list, name)
	}
	return p.fail
}

// took returns what was recorded since the last call.
func (p *plugs) took() []string {
	list := p.list
	p.list = nil
	return list
}

// TestMirror follows a namespace through its changes, without a guest.
func TestMirror(t *testing.T) {
	ns := newPodNS(t)
	ns.add("eth0", "192.0.2.2/24")
	n, err := openNetwork(PodNetwork{Path: ns.path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	}()
	vm := &plugs{}
	step := func(what string, gone int, want ...string) {
		t.Helper()
		left, err := n.refresh()
		if err == nil {
			err = n.plug(t.Context(), vm)
		}
		if err == nil {
			err = n.configure(vm.call)
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := slices.DeleteFunc(vm.took(), func(s string) bool { return strings.Contains(s, "-far") })
		if diff := cmp.Diff(want, got); diff != "" || len(left) != gone {
			t.Errorf("%s: %d of %d are gone; (-want +got):\n%s", what, len(left), gone, diff)
		}
	}
	step("start", 0, "plug net0 02:00:00:00:00:30 1400", "setupinterface eth0 1", "setuproute")
	step("nothing new", 0)
	ns.add("net1", "198.51.100.2/24")
	step("a new link", 0, "plug net1 02:00:00:00:00:31 1400", "setupinterface net1 1", "setuproute")
	link, err := ns.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	ns.addAddress(link, "198.51.100.3/24")
	step("a new address", 0, "setupinterface net1 2", "setuproute")
	if err := ns.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IP{198, 18, 0, 0}, Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	step("a new route", 0, "setuproute")
	if err := ns.LinkSetMTU(link, 1300); err != nil {
		t.Fatal(err)
	}
	step("another mtu", 1, "plug net2 02:00:00:00:00:31 1300", "setupinterface net1 2", "setuproute")
	ns.add("net2", "203.0.113.2/24")
	ns.addAddress(link, "198.51.100.4/24")
	plugFails(t, n, vm, "net2", "setupinterface net1 3", "setuproute")
	step("again", 0, "plug net3 02:00:00:00:00:32 1400", "setupinterface net2 1", "setuproute")
	if err := ns.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	step("a link less", 1, "setuproute")
}

// plugFails finds a link that the VM does not take. The guest is told of the
// others, and of no route through that one.
func plugFails(t *testing.T, n *podNetwork, vm *plugs, name string, want ...string) {
	t.Helper()
	vm.fail = errors.New("not now")
	_, err := n.refresh()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.plug(t.Context(), vm); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want an error that names %s", err, name)
	}
	vm.fail = nil
	vm.took()
	if err := n.configure(vm.call); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, vm.took()); diff != "" {
		t.Errorf("the others (-want +got):\n%s", diff)
	}
	for _, r := range n.told.Routes {
		if r.Device == name {
			t.Errorf("the guest was told of the route %+v", r)
		}
	}
}

// TestUnplugAgain asks a guest that does not let go of a device once more.
func TestUnplugAgain(t *testing.T) {
	n, vm := &podNetwork{}, &plugs{fail: errors.New("not now")}
	if err := n.unplug(t.Context(), vm, []*netPort{{id: "net7"}}, time.Minute); err == nil || !strings.Contains(err.Error(), "net7") {
		t.Errorf("got %v, want an error that names the device", err)
	}
	vm.fail = nil
	vm.took()
	for _, want := range [][]string{{"unplug net7"}, nil} {
		if err := n.unplug(t.Context(), vm, nil, time.Minute); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, vm.took()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
