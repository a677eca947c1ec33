package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// vnetHeader is the length of what a tap with IFF_VNET_HDR puts before a frame.
const vnetHeader = 10

var farIP, podIP = net.IP{192, 0, 2, 1}, net.IP{192, 0, 2, 2}

// arpRequest asks for farIP in the name of the pod.
func arpRequest(mac net.HardwareAddr) []byte {
	b := make([]byte, vnetHeader)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, mac...)
	for _, v := range []uint16{unix.ETH_P_ARP, unix.ARPHRD_ETHER, unix.ETH_P_IP, 6<<8 | 4, 1} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = append(append(b, mac...), podIP...)
	return append(append(b, make([]byte, 6)...), farIP...)
}

// asks plays the guest: it asks for the far end's MAC until it has an answer,
// so frames have gone both ways. A link that has just come up loses frames.
// Other frames are passed over.
func asks(t *testing.T, tap *os.File, mac net.HardwareAddr) bool {
	t.Helper()
	const patience, again = 10 * time.Second, 50 // ms
	buf := make([]byte, 2048)
	silent := true
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if silent {
			if _, err := tap.Write(arpRequest(mac)); err != nil {
				t.Fatal(err)
			}
		}
		fds := []unix.PollFd{{Fd: int32(tap.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, again)
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if silent = n <= 0; silent {
			continue
		}
		size, err := tap.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		frame := buf[vnetHeader:size]
		// To the pod, ARP, answer.
		if bytes.HasPrefix(frame, mac) && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP && frame[21] == 2 {
			return true
		}
	}
	return false
}

// kinds are the links that CNI plugins make: eth0 in the pod, an address at the
// other end.
var kinds = map[string]func(t *testing.T, far, pod *Namespace){
	"veth": func(t *testing.T, far, pod *Namespace) {
		t.Helper()
		far.veth(t, pod, 1400, "192.0.2.1/24")
	},
	"bridge in the pod": func(t *testing.T, far, pod *Namespace) {
		t.Helper()
		far.veth(t, pod, 1400, "192.0.2.1/24")
		must(t, pod.handle.LinkSetName(pod.link(t, "eth0"), "port"))
		pod.add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1400, HardwareAddr: podMAC}})
		must(t, pod.handle.LinkSetMaster(pod.link(t, "port"), pod.link(t, "eth0")))
		pod.up(t, "port")
	},
	"bridge outside": func(t *testing.T, far, pod *Namespace) {
		t.Helper()
		far.veth(t, pod, 1400)
		far.add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: 1400}}, "192.0.2.1/24")
		must(t, far.handle.LinkSetMaster(far.link(t, "far"), far.link(t, "br0")))
	},
	"macvlan": func(t *testing.T, far, pod *Namespace) {
		t.Helper()
		far.add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "far", MTU: 1400}, PeerName: "lower", PeerMTU: 1400}, "192.0.2.1/24")
		far.up(t, "lower")
		far.add(t, &netlink.Macvlan{
			LinkAttrs: netlink.LinkAttrs{Name: "mv", ParentIndex: far.link(t, "lower").Attrs().Index, HardwareAddr: podMAC},
			Mode:      netlink.MACVLAN_MODE_BRIDGE,
		})
		far.move(t, "mv", pod, "eth0")
	},
	"vxlan": func(t *testing.T, far, pod *Namespace) {
		t.Helper()
		far.veth(t, pod, 1500, "198.51.100.1/24")
		must(t, pod.handle.LinkSetName(pod.link(t, "eth0"), "under"))
		pod.up(t, "under", "198.51.100.2/24")
		for ns, peer := range map[*Namespace]net.IP{far: {198, 51, 100, 2}, pod: {198, 51, 100, 1}} {
			name := map[*Namespace]string{far: "vx", pod: "eth0"}[ns]
			attrs := netlink.LinkAttrs{Name: name, MTU: 1400}
			if ns == pod {
				attrs.HardwareAddr = podMAC
			}
			ns.add(t, &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Group: peer, Port: 4789, Learning: true})
		}
		far.up(t, "vx", "192.0.2.1/24")
	},
}

// TestConnect moves frames both ways through links of every kind.
func TestConnect(t *testing.T) {
	for name, prepare := range kinds {
		t.Run(name, func(t *testing.T) {
			far, pod := newNamespace(t), newNamespace(t)
			prepare(t, far, pod)
			pod.up(t, "eth0")
			e := pod.eth0(t)
			tap, err := pod.Connect(e)
			must(t, err)
			defer func() { _ = tap.Close() }()
			if !asks(t, tap, podMAC) {
				t.Error("no answer through the tap")
			}
			made := pod.link(t, tapPrefix+"0").Attrs()
			if !strings.HasPrefix(made.Name, "veth") {
				t.Errorf("the tap %s is counted by cAdvisor", made.Name)
			}
			if made.MTU != 1400 || made.Flags&net.FlagUp == 0 {
				t.Errorf("tap has mtu %d, flags %v", made.MTU, made.Flags)
			}
			if n := len(addressesOf(made.Index, pod.addresses(t))); n != 0 {
				t.Errorf("tap has %d addresses", n)
			}
			s, err := pod.Scan()
			must(t, err)
			for _, other := range s.Endpoints {
				if strings.HasPrefix(other.Interface.NewDevice, tapPrefix) {
					t.Error("the tap is an endpoint itself")
				}
			}
		})
	}
}

func (n *Namespace) eth0(t *testing.T) Endpoint {
	t.Helper()
	s, err := n.Scan()
	must(t, err)
	for _, e := range s.Endpoints {
		if e.Interface.NewDevice == "eth0" {
			return e
		}
	}
	t.Fatalf("eth0 is not among %+v", s.Endpoints)
	return Endpoint{}
}

func (n *Namespace) addresses(t *testing.T) []netlink.Addr {
	t.Helper()
	list, err := n.handle.AddrList(nil, netlink.FAMILY_ALL)
	must(t, err)
	return list
}

// ingress returns the qdiscs of eth0 beside the one for sending, and filters.
func (n *Namespace) ingress(t *testing.T) (qdiscs, filters int) {
	t.Helper()
	link := n.link(t, "eth0")
	list, err := n.handle.QdiscList(link)
	must(t, err)
	for _, q := range list {
		if q.Type() == "ingress" || q.Type() == "clsact" {
			qdiscs++
		}
	}
	found, err := n.handle.FilterList(link, netlink.HANDLE_MIN_INGRESS)
	must(t, err)
	return qdiscs, len(found)
}

func TestDisconnect(t *testing.T) {
	far, pod := newNamespace(t), newNamespace(t)
	far.veth(t, pod, 1500)
	pod.up(t, "eth0")
	e := pod.eth0(t)
	tap, err := pod.Connect(e)
	must(t, err)
	must(t, tap.Close())
	if _, err := pod.handle.LinkByName(tapPrefix + "0"); err == nil {
		t.Error("the tap outlives its file")
	}
	must(t, pod.Disconnect(e.Index))
	if qdiscs, filters := pod.ingress(t); qdiscs != 0 || filters != 0 {
		t.Errorf("%d qdiscs and %d filters are left", qdiscs, filters)
	}
	must(t, pod.Disconnect(e.Index)) // again
	must(t, far.handle.LinkDel(far.link(t, "far")))
	must(t, pod.Disconnect(e.Index)) // without the link
}

// TestConnectAgain is a sandbox after one whose shim was killed.
func TestConnectAgain(t *testing.T) {
	far, pod := newNamespace(t), newNamespace(t)
	far.veth(t, pod, 1500, "192.0.2.1/24")
	pod.up(t, "eth0")
	e := pod.eth0(t)
	for range 3 {
		tap, err := pod.Connect(e)
		must(t, err)
		if !asks(t, tap, podMAC) {
			t.Error("no answer through the tap")
		}
		must(t, tap.Close())
	}
	cookie, err := pod.Cookie()
	must(t, err)
	// Another one is at that path, which may have links of a sandbox of its own.
	must(t, Cleanup(pod.name(), cookie+1))
	if qdiscs, filters := pod.ingress(t); qdiscs != 1 || filters == 0 {
		t.Errorf("%d qdiscs and %d filters are left of another sandbox", qdiscs, filters)
	}
	must(t, Cleanup(pod.name(), cookie))
	if qdiscs, filters := pod.ingress(t); qdiscs != 0 || filters != 0 {
		t.Errorf("%d qdiscs and %d filters are left", qdiscs, filters)
	}
}

// TestForeignFilter leaves alone what other programs put there.
func TestForeignFilter(t *testing.T) {
	far, pod := newNamespace(t), newNamespace(t)
	far.veth(t, pod, 1500, "192.0.2.1/24")
	pod.up(t, "eth0")
	e := pod.eth0(t)
	must(t, pod.handle.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: e.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}))
	attrs := filterAttrs(e.Index)
	attrs.Priority, attrs.Protocol = 1, unix.ETH_P_IPV6
	must(t, pod.handle.FilterAdd(&netlink.U32{FilterAttrs: attrs, Actions: []netlink.Action{netlink.NewMirredAction(e.Index)}}))
	_, before := pod.ingress(t)
	tap, err := pod.Connect(e)
	must(t, err)
	defer func() { _ = tap.Close() }()
	if !asks(t, tap, podMAC) {
		t.Error("no answer through the tap")
	}
	must(t, pod.Disconnect(e.Index))
	if qdiscs, filters := pod.ingress(t); qdiscs != 1 || filters != before {
		t.Errorf("%d qdiscs and %d filters are left of 1 and %d", qdiscs, filters, before)
	}
}

func TestConnectFails(t *testing.T) {
	pod := newNamespace(t)
	_, err := pod.Connect(Endpoint{Index: 4711})
	if err == nil {
		t.Fatal("a link that does not exist was connected")
	}
	if _, err := pod.handle.LinkByName(tapPrefix + "0"); err == nil {
		t.Error("a tap is left")
	}
}

func TestCleanupOfNothing(t *testing.T) {
	must(t, Cleanup(t.TempDir()+"/gone", 0))
	must(t, Cleanup("/proc/self/ns/net", 0)) // the path has another meaning by now
}

// TestCookie: it is the namespace's, whichever way that is found, and no other one's.
func TestCookie(t *testing.T) {
	a, b := newNamespace(t), newNamespace(t)
	again, err := Open(a.name())
	must(t, err)
	defer func() { _ = again.Close() }()
	var cookies [3]uint64
	for i, n := range []*Namespace{a, b, again} {
		cookies[i], err = n.Cookie()
		must(t, err)
	}
	if cookies[0] == 0 || cookies[0] == cookies[1] || cookies[0] != cookies[2] {
		t.Errorf("cookies %d", cookies)
	}
}
