//go:build e2e

package e2e_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// newPodNetwork makes what a CNI plugin would: a pod's namespace, whose eth0
// has its other end in another namespace, with both families and MTU 1400.
func newPodNetwork(tb testing.TB) (far, pod netns) {
	tb.Helper()
	far, pod = newNetns(tb), newNetns(tb)
	far.ip("link add far mtu 1400 type veth peer name eth0 mtu 1400 address 02:00:00:00:00:42 netns " + pod.name)
	far.ip("addr add 192.0.2.1/24 dev far")
	far.ip("addr add 2001:db8::1/64 dev far nodad")
	far.ip("addr add 198.51.100.1/32 dev far")
	far.ip("link set far up")
	pod.ip("addr add 192.0.2.2/24 dev eth0")
	pod.ip("addr add 2001:db8::2/64 dev eth0 nodad")
	pod.ip("link set eth0 up")
	pod.ip("route add default via 192.0.2.1")
	pod.ip("route add default via 2001:db8::1")
	return far, pod
}

func TestNetwork(t *testing.T) {
	shared.Watch(t)
	far, pod := newPodNetwork(t)
	// A second link, of another kind.
	far.ip("link add far2 type veth peer name lower2")
	far.ip("addr add 203.0.113.1/24 dev far2")
	far.ip("link set far2 up")
	far.ip("link set lower2 up")
	far.ip("link add mv2 link lower2 type macvlan mode bridge")
	far.ip("link set mv2 netns " + pod.name + " name data0")
	pod.ip("addr add 203.0.113.2/24 dev data0")
	pod.ip("link set data0 up")
	pod.ip("route add blackhole 198.18.0.0/24")
	pod.ip("route add 198.18.1.0/24 via 203.0.113.1 src 203.0.113.2 metric 50")
	pod.ip("route add 198.18.2.0/24 via 10.9.9.9 dev data0 onlink")
	pod.ip("route add unreachable 2001:db8:9::/48")
	pod.ip("neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 dev data0 nud permanent")
	// The kernel makes these when it has noticed that the links are up. A pod sees them
	// then, as with runc.
	for _, link := range []string{"eth0", "data0"} {
		harness.Until(t, "the link-local address of "+link, func() bool {
			return strings.Contains(pod.ip("-6 addr show dev "+link), "inet6 fe80:")
		})
	}
	g := runGuest(t, shared, "net", pod)

	t.Run("configuration", func(t *testing.T) { wantConfiguration(t, g) })
	t.Run("vhost", func(t *testing.T) { wantVhost(t, "net", 2) })
	t.Run("ping", func(*testing.T) {
		for _, address := range []string{"192.0.2.1", "2001:db8::1", "198.51.100.1", "203.0.113.1"} {
			g.must("ping -c 1 -W 10 " + address)
			g.must("ping -c 1 -W 10 -s 5000 " + address) // in fragments
		}
	})
	t.Run("tcp", func(t *testing.T) {
		for _, end := range []struct{ far, pod string }{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}, {"203.0.113.1", "203.0.113.2"}} {
			wantUpload(t, g, far, end.far)
			wantDownload(t, g, far, end.pod)
		}
	})
	t.Run("udp", func(t *testing.T) {
		for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
			wantDNS(t, g, far, address)
		}
	})
	t.Run("late", func(t *testing.T) { wantLate(t, g, far, pod) })
	t.Run("vhost of what has stayed", func(t *testing.T) { wantVhost(t, "net", 2) })
	t.Run("the namespace goes first", func(t *testing.T) {
		command(t, "ip", "netns", "del", pod.name)
	})
}

// wantVhost counts the interfaces of a VM whose frames the host's kernel carries: all, where it
// can and the guest is not emulated.
func wantVhost(t *testing.T, id string, links int) {
	t.Helper()
	const vhost = "/dev/vhost-net"
	accel, _, err := qemu.Resolve(hypervisor.AccelAuto, qemu.LocalHost())
	if err != nil {
		t.Fatal(err)
	}
	if device, err := os.OpenFile(vhost, os.O_RDWR, 0); err != nil || accel != hypervisor.AccelKVM {
		t.Logf("accelerator %s, %v", accel, err)
		links = 0
	} else if err := device.Close(); err != nil {
		t.Error(err)
	}
	open := 0
	for _, file := range shared.AwaitProcess(t, harness.QEMU, id).FDs(t) {
		if file == vhost {
			open++
		}
	}
	if open != links {
		t.Errorf("QEMU has %d descriptors of %s, want %d", open, vhost, links)
	}
}

// wantConfiguration compares the guest with the namespace.
func wantConfiguration(t *testing.T, g guest) {
	t.Helper()
	for script, texts := range map[string][]string{
		"ip addr show eth0": {"mtu 1400", "link/ether 02:00:00:00:00:42", "inet 192.0.2.2/24", "inet6 2001:db8::2/64", "inet6 fe80::ff:fe00:42/64"},
		"ip addr show data0": {
			"mtu 1500", "inet 203.0.113.2/24",
		},
		"ip route": {
			"default via 192.0.2.1 dev eth0", "blackhole 198.18.0.0/24", "192.0.2.0/24 dev eth0 scope link  src 192.0.2.2",
			"198.18.1.0/24 via 203.0.113.1 dev data0  src 203.0.113.2  metric 50", "198.18.2.0/24 via 10.9.9.9 dev data0 onlink",
		},
		"ip -6 route": {"default via 2001:db8::1 dev eth0", "unreachable 2001:db8:9::/48", "fe80::/64 dev eth0", "fe80::/64 dev data0"},
		"ip neigh":    {"203.0.113.77 dev data0 lladdr 02:00:00:00:00:77", "PERMANENT"},
	} {
		out := g.must(script)
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s has no %q:\n%s", script, text, out)
			}
		}
	}
}

// payload is larger than all the buffers on its way.
var payload = bytes.Repeat([]byte("ccv2 network "), 100_000)

// listen accepts one connection in the namespace and returns what comes.
func (n netns) listen(address string) (port int, received <-chan []byte) {
	n.tb.Helper()
	var l net.Listener
	n.inside(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	})
	out := make(chan []byte, 1)
	go func() {
		defer func() { _ = l.Close() }()
		conn, err := l.Accept()
		if err != nil {
			out <- nil
			return
		}
		_ = conn.SetDeadline(time.Now().Add(harness.Patience))
		data, _ := io.ReadAll(conn) // what is missing shows
		_ = conn.Close()
		out <- data
	}()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		n.tb.Fatalf("listening on %v", l.Addr())
	}
	return addr.Port, out
}

// wantUpload sends from the guest.
func wantUpload(t *testing.T, g guest, far netns, address string) {
	t.Helper()
	port, received := far.listen(address)
	g.must(fmt.Sprintf("yes 'ccv2 network' | head -c %d | nc %s %d", len(payload), address, port))
	if got := <-received; len(got) != len(payload) || !bytes.HasPrefix(got, []byte("ccv2 network\nccv2")) {
		t.Errorf("%d bytes of %d came from the guest to %s", len(got), len(payload), address)
	}
}

// wantDownload sends to the guest.
func wantDownload(t *testing.T, g guest, far netns, address string) {
	t.Helper()
	wait := g.start("nc -l -p 7000 | md5sum")
	harness.Until(t, "connection to "+address, func() bool {
		err := error(nil)
		far.inside(func() error {
			err = send(address)
			return nil
		})
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) { // nc is not there yet
			t.Fatal(err)
		}
		return err == nil
	})
	out, status := wait()
	want := fmt.Sprintf("%x", md5.Sum(payload))
	if !strings.HasPrefix(out, want) || status != 0 {
		t.Errorf("the guest got other data through %s: %q, exit status %d, want %s", address, out, status, want)
	}
}

func send(address string) error {
	conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP(address), Port: 7000})
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return errors.Join(err, conn.Close())
	}
	_, err = conn.Write(payload)
	return errors.Join(err, conn.Close())
}

// wantDNS sends a datagram and its answer: a name server that knows no name.
func wantDNS(t *testing.T, g guest, far netns, address string) {
	t.Helper()
	var conn *net.UDPConn
	far.inside(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address), Port: 53})
		return err
	})
	answered := make(chan int, 1)
	go func() {
		buf := make([]byte, 512)
		count := 0
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				answered <- count
				return
			}
			const isAnswer, noSuchName = 0x80, 3
			buf[2] |= isAnswer
			buf[3] = noSuchName
			if _, err := conn.WriteToUDP(buf[:n], from); err == nil {
				count++
			}
		}
	}()
	out, _ := g.sh("nslookup -type=a ccv2.test. " + address)
	_ = conn.Close()
	if n := <-answered; n == 0 || !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("%d queries of the guest were answered through %s; it says %q", n, address, out)
	}
}

// wantLate changes the namespace of a running pod.
func wantLate(t *testing.T, g guest, far, pod netns) {
	t.Helper()
	far.ip("link add far3 mtu 1300 type veth peer name late0 mtu 1300 netns " + pod.name)
	far.ip("addr add 198.18.9.1/24 dev far3")
	far.ip("link set far3 up")
	pod.ip("addr add 198.18.9.2/24 dev late0")
	pod.ip("link set late0 up")
	pod.ip("route add 198.18.10.0/24 via 198.18.9.1")
	g.wants("ip addr show late0", "mtu 1300", "inet 198.18.9.2/24")
	g.wants("ip route", "198.18.9.0/24 dev late0", "198.18.10.0/24 via 198.18.9.1")
	g.must("ping -c 1 -W 10 198.18.9.1")
	pod.ip("addr add 198.18.11.2/24 dev late0")
	pod.ip("addr del 198.18.9.2/24 dev late0")
	g.wants("! ip addr show late0 | grep 198.18.9.2 && ip addr show late0", "198.18.11.2/24")
	pod.ip("route del 198.18.10.0/24")
	g.wants("! ip route | grep 198.18.10 && ip route", "198.18.11.0/24 dev late0")
	pod.ip("link del late0")
	g.wants("ls /sys/class/net | grep late0 || echo gone", "gone")
	g.must("ping -c 1 -W 10 192.0.2.1") // the others are as they were
}

// TestNoNetwork runs a container that is no pod and names no network: it must
// not get the host's, and gets a loopback.
func TestNoNetwork(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "nonet", harness.Streams{}, []string{"sleep", "1000"}, oci.WithHostNamespace(specs.NetworkNamespace))
	if out, status := shared.Output(t, task, "links", "ls", "/sys/class/net"); strings.TrimSpace(out) != "lo" || status != 0 {
		t.Errorf("links: %q, status %d", out, status)
	}
	shared.KillTask(t, task)
}

// TestNetworkAfterCrash kills the shim: `delete` gives the link back.
func TestNetworkAfterCrash(t *testing.T) {
	shared.Watch(t)
	_, pod := newPodNetwork(t)
	events := shared.Record(t)
	runGuest(t, shared, "netcrash", pod)
	if out := command(t, "tc", "-n", pod.name, "qdisc", "show", "dev", "eth0"); !strings.Contains(out, "ingress") {
		t.Fatalf("eth0 is not mirrored: %s", out)
	}
	shared.AwaitProcess(t, harness.Shim, "netcrash").Signal(t, unix.SIGKILL)
	events.Await(t, "exit", "netcrash", "")
	harness.Until(t, "end of the mirroring", func() bool {
		out := command(t, "tc", "-n", pod.name, "qdisc", "show", "dev", "eth0")
		return !strings.Contains(out, "ingress")
	})
	if out := pod.ip("-br link"); strings.Contains(out, "vethccv2tap") {
		t.Errorf("a tap is left:\n%s", out)
	}
}

// TestOwnNetwork sets up the network of a container in the way of ctr's --cni
// and nerdctl: after it was created, in the namespace of its pid. Its process
// finds the interface there.
func TestOwnNetwork(t *testing.T) {
	shared.Watch(t)
	var out harness.Buffer
	container := shared.Container(t, "ownnet", []string{"sh", "-c", "ip addr show eth0 && ping -c 1 -W 10 192.0.2.1"})
	task := shared.Task(t, container, harness.Streams{Stdout: &out, Stderr: &out})
	pid := fmt.Sprint(task.Pid())
	far := newNetns(t)
	far.ip("link add far type veth peer name eth0 netns " + pid)
	far.ip("addr add 192.0.2.1/24 dev far")
	far.ip("link set far up")
	inside := []string{"--target", pid, "--net", "ip"}
	command(t, "nsenter", append(inside, strings.Fields("addr add 192.0.2.2/24 dev eth0")...)...)
	command(t, "nsenter", append(inside, strings.Fields("link set eth0 up")...)...)
	if err := task.Start(shared.Context()); err != nil {
		t.Fatal(err)
	}
	if status := shared.Finish(t, task); status != 0 || !strings.Contains(out.String(), "inet 192.0.2.2/24") {
		t.Errorf("status %d, output:\n%s", status, out.String())
	}
}
