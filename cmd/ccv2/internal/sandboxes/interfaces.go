package sandboxes

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Interface has the counters of an interface.
type Interface struct {
	Name      string `json:"name"`
	RXBytes   uint64 `json:"rx_bytes"`
	RXPackets uint64 `json:"rx_packets"`
	RXErrors  uint64 `json:"rx_errors"`
	RXDropped uint64 `json:"rx_dropped"`
	TXBytes   uint64 `json:"tx_bytes"`
	TXPackets uint64 `json:"tx_packets"`
	TXErrors  uint64 `json:"tx_errors"`
	TXDropped uint64 `json:"tx_dropped"`
}

// Interfaces reads the counters of a sandbox's network namespace. Of one that has ended there are none.
func Interfaces(s store.State) []Interface {
	ns, err := openNetwork(s)
	if err != nil {
		return nil
	}
	defer ns.Close()
	var b []byte
	_ = osthread.RunInNetNS(ns.File(), func() (err error) {
		b, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	var all []Interface
	for text := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(text, ":")
		fields := strings.Fields(rest)
		const columns = 16
		if !ok || len(fields) != columns {
			continue // the head
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(fields[i], 10, 64); return v }
		all = append(all, Interface{
			Name: strings.TrimSpace(name), RXBytes: n(0), RXPackets: n(1), RXErrors: n(2), RXDropped: n(3),
			TXBytes: n(8), TXPackets: n(9), TXErrors: n(10), TXDropped: n(11),
		})
	}
	return all
}

// Link is an interface that the guest has of the pod's network namespace.
type Link struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac"`
	MTU       int      `json:"mtu"`
	Addresses []string `json:"addresses,omitempty"`
}

// openNetwork opens the network namespace of a sandbox: the pod's, or that of its VMM, which has one of its
// own where there is no pod's. That of a spare VM never is the pod's.
func openNetwork(s store.State) (*network.Namespace, error) {
	path := s.NetNS
	for _, p := range s.Processes {
		if s.NetNS == "" && p.Name == "qemu" {
			path = fmt.Sprintf("/proc/%d/ns/net", p.PID)
		}
	}
	ns, err := network.Open(path)
	if err != nil {
		return nil, err
	}
	if cookie, err := ns.Cookie(); err == nil && s.NetNSCookie != 0 && cookie != s.NetNSCookie {
		return nil, errors.Join(fmt.Errorf("open network namespace: %s is another one by now: %w", path, errdefs.ErrNotFound), ns.Close())
	}
	return ns, nil
}

// Links are those of the network namespace of a sandbox.
func Links(s store.State) ([]Link, error) {
	ns, err := openNetwork(s)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	snapshot, err := ns.Scan()
	if err != nil {
		return nil, err
	}
	var all []Link
	for _, e := range snapshot.Endpoints {
		l := Link{Name: text(e.Interface.NewDevice), MAC: text(e.Interface.MAC), MTU: e.Interface.MTU}
		for _, a := range e.Interface.IPAddresses {
			l.Addresses = append(l.Addresses, text(a.IP+"/"+a.Mask))
		}
		all = append(all, l)
	}
	return all, nil
}

func text(s string) string { return printable.Line(s, printable.MaxName) }
