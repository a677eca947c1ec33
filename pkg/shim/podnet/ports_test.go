package podnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/log"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network/networktest"
)

// plugs records what is plugged into a VM, and what it is told.
type plugs struct {
	list  []string
	vhost []*os.File
	fail  error
}

func (p *plugs) Plug(_ context.Context, d hypervisor.Device) error {
	if nic, ok := d.(hypervisor.NetDevice); ok && p.fail == nil {
		line := fmt.Sprintf("plug %s %s %d", nic.ID, nic.MAC, nic.MTU)
		if nic.Vhost != nil {
			p.vhost = append(p.vhost, nic.Vhost)
			if _, err := nic.Vhost.Stat(); err == nil {
				line += " vhost"
			}
		}
		p.list = append(p.list, line)
	}
	return p.fail
}

func (p *plugs) Unplug(_ context.Context, id string) error {
	p.list = append(p.list, "unplug "+id)
	return p.fail
}

// SetInterface implements [Configurer].
func (p *plugs) SetInterface(_ context.Context, i hyperstart.Interface) error {
	p.list = append(p.list, fmt.Sprintf("interface %s %d", i.NewDevice, len(i.IPAddresses)))
	return p.fail
}

// SetRoutes implements [Configurer].
func (p *plugs) SetRoutes(context.Context, hyperstart.Routes) error {
	p.list = append(p.list, "routes")
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
	ns := networktest.New(t)
	ns.Add("eth0", "192.0.2.2/24")
	n, err := Open(bundle.Network{Path: ns.Path}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	vm := &plugs{}
	step := func(what string, gone int, want ...string) {
		t.Helper()
		left, err := n.ports.refresh(n.ns)
		if err == nil {
			err = n.ports.plug(t.Context(), vm)
		}
		if err == nil {
			err = n.ports.configure(t.Context(), vm)
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := slices.DeleteFunc(vm.took(), func(s string) bool { return strings.Contains(s, "-far") })
		if diff := cmp.Diff(want, got); diff != "" || len(left) != gone {
			t.Errorf("%s: %d of %d are gone; (-want +got):\n%s", what, len(left), gone, diff)
		}
	}
	step("start", 0, "plug net0 02:00:00:00:00:30 1400", "interface eth0 1", "routes")
	step("nothing new", 0)
	ns.Add("net1", "198.51.100.2/24")
	step("a new link", 0, "plug net1 02:00:00:00:00:31 1400", "interface net1 1", "routes")
	link, err := ns.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	ns.AddAddress(link, "198.51.100.3/24")
	step("a new address", 0, "interface net1 2", "routes")
	if err := ns.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IP{198, 18, 0, 0}, Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	step("a new route", 0, "routes")
	if err := ns.LinkSetMTU(link, 1300); err != nil {
		t.Fatal(err)
	}
	step("another mtu", 1, "plug net2 02:00:00:00:00:31 1300", "interface net1 2", "routes")
	ns.Add("net2", "203.0.113.2/24")
	ns.AddAddress(link, "198.51.100.4/24")
	plugFails(t, n, vm, "net2", "interface net1 3", "routes")
	step("again", 0, "plug net3 02:00:00:00:00:32 1400", "interface net2 1", "routes")
	if err := ns.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	step("a link less", 1, "routes")
}

// plugFails finds a link that the VM does not take. The guest is told of the
// others, and of no route through that one.
func plugFails(t *testing.T, n *Network, vm *plugs, name string, want ...string) {
	t.Helper()
	vm.fail = errors.New("not now")
	_, err := n.ports.refresh(n.ns)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.ports.plug(t.Context(), vm); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want an error that names %s", err, name)
	}
	vm.fail = nil
	vm.took()
	if err := n.ports.configure(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, vm.took()); diff != "" {
		t.Errorf("the others (-want +got):\n%s", diff)
	}
	for _, r := range n.ports.applied.Routes {
		if r.Device == name {
			t.Errorf("the guest was told of the route %+v", r)
		}
	}
}

// TestVhost: each interface gets a file of its own of what carries its frames, which is closed
// when the VM has it. A host that has none is told so once.
func TestVhost(t *testing.T) {
	device := filepath.Join(t.TempDir(), "vhost-net")
	var said bytes.Buffer
	logger := log.L.Logger
	defer logger.SetOutput(logger.Out)
	logger.SetOutput(&said)
	for _, there := range []bool{false, true} {
		n, vm := &ports{vhost: device}, &plugs{}
		want := []string{"plug net0  0", "plug net1  0"}
		if there {
			want = []string{"plug net0  0 vhost", "plug net1  0 vhost"}
			if err := os.WriteFile(device, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"net0", "net1"} {
			tap, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			n.list = append(n.list, &port{id: id, tap: tap})
		}
		if err := n.plug(t.Context(), vm); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, vm.took()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, file := range vm.vhost {
			if _, err := file.Stat(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("a file of vhost-net is still open: %v", err)
			}
		}
	}
	if got := strings.Count(said.String(), "goes through the VMM"); got != 1 {
		t.Errorf("the log says %d times that there is none:\n%s", got, said.String())
	}
}

// TestUnplugAgain tries a device again that the guest has not released.
func TestUnplugAgain(t *testing.T) {
	n, vm := &ports{}, &plugs{fail: errors.New("not now")}
	if err := n.unplug(t.Context(), vm, []*port{{id: "net7"}}, time.Minute); err == nil || !strings.Contains(err.Error(), "net7") {
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
