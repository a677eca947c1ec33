package sandbox

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
)

func TestNetworkOf(t *testing.T) {
	other := specs.LinuxNamespace{Type: specs.PIDNamespace}
	pod := map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	for _, test := range []struct {
		name        string
		annotations map[string]string
		namespaces  []specs.LinuxNamespace
		want        PodNetwork
	}{
		{"none of a pod", pod, []specs.LinuxNamespace{other}, PodNetwork{Host: true}},
		{"none of a container", nil, []specs.LinuxNamespace{other}, PodNetwork{}},
		{"new", pod, []specs.LinuxNamespace{other, {Type: specs.NetworkNamespace}}, PodNetwork{Own: true}},
		{"path", pod, []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/run/netns/x"}}, PodNetwork{Path: "/run/netns/x", Own: true}},
	} {
		got := networkOf(&specs.Spec{Annotations: test.annotations, Linux: &specs.Linux{Namespaces: test.namespaces}})
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestOpenNetwork(t *testing.T) {
	for _, host := range []PodNetwork{{Host: true}, {Path: "/proc/self/ns/net"}} {
		if _, err := openNetwork(host); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "hostNetwork: false") {
			t.Errorf("%+v: got %v, want a refusal that says what to do", host, err)
		}
	}
	if _, err := openNetwork(PodNetwork{Path: filepath.Join(t.TempDir(), "gone")}); !errdefs.IsNotFound(err) {
		t.Errorf("got %v for a namespace that does not exist", err)
	}
}

func legacyExample() (ports []*netPort, routes []hyperstart.Route) {
	first := hyperstart.Interface{NewDevice: "eth0", MAC: "02:00:00:00:00:01", MTU: 1400, NoARP: true, IPAddresses: []hyperstart.Address{
		{IP: "192.0.2.2", Mask: "24"}, {IP: "2001:db8::2", Mask: "64"}, {IP: "fe80::1", Mask: "64"},
	}}
	second := hyperstart.Interface{NewDevice: "data", MAC: "02:00:00:00:00:02", MTU: 1500, IPAddresses: []hyperstart.Address{
		{IP: "198.51.100.2", Mask: "32", Peer: "198.51.100.1"},
	}}
	ports = []*netPort{{link: network.Endpoint{Interface: first}}, {link: network.Endpoint{Interface: second}}}
	routes = []hyperstart.Route{
		{Dest: "192.0.2.0/24", Device: "eth0", Protocol: unix.RTPROT_KERNEL},
		{Dest: "default", Gateway: "192.0.2.1", Device: "eth0", Protocol: unix.RTPROT_BOOT, Metric: 100},
		{Dest: "::/0", Gateway: "2001:db8::1", Device: "eth0"},
		{Dest: "198.18.0.0/24", Type: hyperstart.RouteBlackhole},
	}
	return ports, routes
}

// TestLegacyNetwork has no key that an original agent refuses.
func TestLegacyNetwork(t *testing.T) {
	dropped := []string{"address 2001:db8::2", "address 198.51.100.2", "route ::/0", "route 198.18.0.0/24"}
	routes := `[{"dest":"default","gateway":"192.0.2.1","device":"eth0"}]`
	byName := `[{"device":"eth0","ipAddresses":[{"ipAddress":"192.0.2.2","netMask":"24"}],"mtu":1400},{"device":"eth1","newDeviceName":"data","mtu":1500}]`
	byMAC := `[{"newDeviceName":"eth0","ipAddresses":[{"ipAddress":"192.0.2.2","netMask":"24"}],"mtu":1400,"macAddr":"02:00:00:00:00:01"},` +
		`{"newDeviceName":"data","mtu":1500,"macAddr":"02:00:00:00:00:02"}]`
	for dialect, want := range map[hyperstart.Dialect]string{
		hyperstart.DialectHyperhq: byName, hyperstart.DialectClearC: byName, hyperstart.DialectClearGo: byMAC,
	} {
		ports, all := legacyExample()
		interfaces, kept, without := legacyNetwork(ports, all, dialect)
		for _, part := range []struct {
			got  any
			want string
		}{{interfaces, want}, {kept, routes}} {
			b, err := json.Marshal(part.got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(part.want, string(b)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", dialect, diff)
			}
		}
		if diff := cmp.Diff(dropped, without); diff != "" {
			t.Errorf("%s leaves out (-want +got):\n%s", dialect, diff)
		}
	}
}

// podNS is a network namespace that lives as long as the test.
type podNS struct {
	*netlink.Handle

	t    *testing.T
	path string
}

func newPodNS(t *testing.T) podNS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	ns := podNS{t: t, path: filepath.Join(t.TempDir(), "netns")}
	if err := os.WriteFile(ns.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- ns.open() }()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ns.Close()
		if err := unix.Unmount(ns.path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// open makes the namespace. The thread comes back, or ends.
func (ns *podNS) open() error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	var openErr error
	ns.Handle, openErr = netlink.NewHandle(unix.NETLINK_ROUTE)
	mountErr := unix.Mount("/proc/thread-self/ns/net", ns.path, "", unix.MS_BIND, "")
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(openErr, mountErr, err)
	}
	runtime.UnlockOSThread()
	return errors.Join(openErr, mountErr)
}

// add makes a link that is up, with an address.
func (ns podNS) add(name, address string) {
	ns.t.Helper()
	attrs := netlink.LinkAttrs{Name: name, MTU: 1400, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, name[len(name)-1]}}
	steps := []func(netlink.Link) error{
		func(l netlink.Link) error { return ns.LinkAdd(l) },
		func(l netlink.Link) error {
			addr, err := netlink.ParseAddr(address)
			return errors.Join(err, ns.AddrAdd(l, addr))
		},
		func(l netlink.Link) error { return ns.LinkSetUp(l) },
	}
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "-far"}
	for _, step := range steps {
		if err := step(link); err != nil {
			ns.t.Fatal(err)
		}
	}
}

// addAddress gives a link one more address.
func (ns podNS) addAddress(link netlink.Link, address string) {
	ns.t.Helper()
	addr, err := netlink.ParseAddr(address)
	if err = errors.Join(err, ns.AddrAdd(link, addr)); err != nil {
		ns.t.Fatal(err)
	}
}

// TestNetworkIsOne holds nothing but the namespace that it was told to open,
// and nothing at all in the end.
func TestNetworkIsOne(t *testing.T) {
	ns := newPodNS(t)
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	n, err := openNetwork(PodNetwork{Path: ns.path})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

// TestNetworkOfSandbox tells the guest before STARTPOD, follows changes, and
// gives the links back.
func TestNetworkOfSandbox(t *testing.T) {
	ns := newPodNS(t)
	ns.add("eth0", "192.0.2.2/24")
	f := newFixture(t, hyperstart.DialectCCv2)
	told := make(chan hyperstart.Code, 16)
	f.agent.noted = func(code hyperstart.Code) {
		if code == hyperstart.SetupInterface || code == hyperstart.SetupRoute || code == hyperstart.StartPod {
			told <- code
		}
	}
	expect := func(want ...hyperstart.Code) {
		t.Helper()
		for _, code := range want {
			select {
			case got := <-told:
				if got != code {
					t.Errorf("the guest was told %s, want %s", got, code)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("the guest was not told %s", code)
			}
		}
	}
	pod := Pod{Hostname: "h", Network: PodNetwork{Path: ns.path}}
	if err := f.EnsureReady(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	expect(hyperstart.SetupInterface, hyperstart.SetupRoute, hyperstart.StartPod)
	state, err := f.Sandbox.dir.Load()
	if err != nil || state.NetNS != ns.path {
		t.Errorf("recorded is %q, %v", state.NetNS, err)
	}
	eth0, err := ns.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	ns.addAddress(eth0, "192.0.2.3/24")
	expect(hyperstart.SetupInterface, hyperstart.SetupRoute)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	qdiscs, err := ns.QdiscList(eth0)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qdiscs {
		if q.Type() == "ingress" {
			t.Error("eth0 is still mirrored")
		}
	}
}

// TestHostNetworkTakesNothing refuses before a VM is started.
func TestHostNetworkTakesNothing(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	err := f.EnsureReady(t.Context(), Pod{Network: PodNetwork{Host: true}})
	if !errors.Is(err, network.ErrHost) {
		t.Errorf("got %v, want a refusal", err)
	}
	if f.driver.machine() != nil {
		t.Error("a VM was started")
	}
}
