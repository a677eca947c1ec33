package network

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// newNamespace makes a network namespace with a path that ends with the test.
func newNamespace(t *testing.T) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	path := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, bindNew(path))
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) { // a test that removed it
			t.Error(err)
		}
	})
	n, err := Open(path)
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// bindNew puts a new network namespace at path.
func bindNew(path string) error {
	return osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// link returns a link by name.
func (n *Namespace) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := n.handle.LinkByName(name)
	must(t, err)
	return link
}

// add makes a link in the namespace, gives it addresses and brings it up.
func (n *Namespace) add(t *testing.T, link netlink.Link, addresses ...string) {
	t.Helper()
	must(t, n.handle.LinkAdd(link))
	n.up(t, link.Attrs().Name, addresses...)
}

func (n *Namespace) up(t *testing.T, name string, addresses ...string) {
	t.Helper()
	link := n.link(t, name)
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		must(t, err)
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		must(t, n.handle.AddrAdd(link, addr))
	}
	must(t, n.handle.LinkSetUp(link))
}

// move puts a link into another namespace under a new name.
func (n *Namespace) move(t *testing.T, name string, to *Namespace, newName string) {
	t.Helper()
	must(t, n.handle.LinkSetNsFd(n.link(t, name), int(to.file.Fd())))
	must(t, to.handle.LinkSetName(to.link(t, name), newName))
}

var podMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x42}

// veth connects two namespaces: "far" here, with addresses, and "eth0" in pod.
func (n *Namespace) veth(t *testing.T, pod *Namespace, mtu int, addresses ...string) {
	t.Helper()
	n.add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "far", MTU: mtu}, PeerName: "near", PeerMTU: uint32(mtu), PeerHardwareAddr: podMAC}, addresses...)
	n.move(t, "near", pod, "eth0")
}

func TestOpenRefusesHost(t *testing.T) {
	const path = "/proc/self/ns/net"
	_, err := Open(path)
	if !errors.Is(err, ErrHost) || !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open(%s) = %v, want a refusal that names it", path, err)
	}
}

func TestOpenMissing(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "gone"))
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("a directory was opened as a network namespace")
	}
}

// TestNoThreadStays is what sockets and processes of the shim depend on.
func TestNoThreadStays(t *testing.T) {
	pod := newNamespace(t)
	newNamespace(t).veth(t, pod, 1500)
	pod.up(t, "eth0")
	for range 10 {
		s, err := pod.Scan()
		must(t, err)
		tap, err := pod.Connect(s.Endpoints[0])
		must(t, err)
		must(t, tap.Close())
	}
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	must(t, err)
	for _, task := range tasks {
		got, err := os.Readlink(task)
		if errors.Is(err, os.ErrNotExist) { // the thread has ended
			continue
		}
		must(t, err)
		if diff := cmp.Diff(own, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", task, diff)
		}
	}
}
