package networktest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is a network namespace that lives as long as the test.
type NS struct {
	*netlink.Handle

	t    testing.TB
	Path string
}

// New makes a namespace, or skips the test of a user who is not root.
func New(t testing.TB) NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	ns := NS{t: t, Path: filepath.Join(t.TempDir(), "netns")}
	if err := os.WriteFile(ns.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- ns.open() }()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ns.Close()
		if err := unix.Unmount(ns.Path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// open makes the namespace. The thread comes back, or ends.
func (ns *NS) open() error {
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
	mountErr := unix.Mount("/proc/thread-self/ns/net", ns.Path, "", unix.MS_BIND, "")
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(openErr, mountErr, err)
	}
	runtime.UnlockOSThread()
	return errors.Join(openErr, mountErr)
}

// Add makes a link that is up, with an address.
func (ns NS) Add(name, address string) {
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

// AddAddress gives a link one more address.
func (ns NS) AddAddress(link netlink.Link, address string) {
	ns.t.Helper()
	addr, err := netlink.ParseAddr(address)
	if err = errors.Join(err, ns.AddrAdd(link, addr)); err != nil {
		ns.t.Fatal(err)
	}
}
