package network

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// TestListenLoopback: every port of the loopback leads to the listener, and
// nothing else does.
func TestListenLoopback(t *testing.T) {
	ns := newNamespace(t)
	lo, err := ns.handle.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.handle.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	const other = "10.1.2.3"
	if err := ns.handle.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(other), Mask: net.CIDRMask(32, 32)}}); err != nil {
		t.Fatal(err)
	}
	l, err := ns.ListenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	dial := func(address string) (conn net.Conn, err error) {
		err = osthread.RunInNetNS(ns.file, func() error {
			conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
			return err
		})
		return conn, err
	}
	for _, address := range []string{"127.0.0.1:80", "127.0.0.1:65535", "127.1.2.3:1"} {
		client, err := dial(address)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := server.LocalAddr().String(); got != address {
			t.Errorf("a connection to %s looks like one to %s", address, got)
		}
		_, _ = client.Close(), server.Close()
	}
	if conn, err := dial(other + ":80"); err == nil {
		_ = conn.Close()
		t.Errorf("%s is no loopback", other)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := dial("127.0.0.1:80"); err == nil {
		_ = conn.Close()
		t.Error("closed, and still accepted")
	}
}
