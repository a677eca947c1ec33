package network

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestWatch(t *testing.T) {
	far, pod := newNamespace(t), newNamespace(t)
	w, err := pod.Watch()
	must(t, err)
	waits := make(chan error)
	go func() {
		for {
			err := w.Wait(0)
			waits <- err
			if err != nil {
				return
			}
		}
	}()
	changed := func(what string, change func()) {
		t.Helper()
		change()
		select {
		case err := <-waits:
			must(t, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("no report of %s", what)
		}
	}
	changed("a link", func() { far.veth(t, pod, 1500) })
	changed("an address", func() { pod.up(t, "eth0", "192.0.2.2/24") })
	changed("a route", func() {
		must(t, pod.handle.RouteAdd(&netlink.Route{Dst: cidr(t, "198.51.100.0/24"), Gw: farIP, LinkIndex: pod.link(t, "eth0").Attrs().Index}))
	})
	changed("a neighbour", func() {
		must(t, pod.handle.NeighSet(&netlink.Neigh{LinkIndex: pod.link(t, "eth0").Attrs().Index, State: netlink.NUD_PERMANENT, IP: farIP, HardwareAddr: podMAC}))
	})
	must(t, w.Close())
	for { // what came late of the changes may be reported first
		select {
		case err := <-waits:
			if err != nil {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Close does not wake Wait")
		}
	}
}

func TestWatchLimit(t *testing.T) {
	w, err := newNamespace(t).Watch()
	must(t, err)
	defer func() { _ = w.Close() }()
	begin := time.Now()
	must(t, w.Wait(20*time.Millisecond))
	if took := time.Since(begin); took < 20*time.Millisecond {
		t.Errorf("returned after %v", took)
	}
}
