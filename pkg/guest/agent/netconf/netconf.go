package netconf

import (
	"context"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Devices knows when the kernel may have found a new device.
type Devices interface {
	// Wait returns when check reports true or fails, or when ctx ends. It calls
	// check at once, and again whenever there may be a new device.
	Wait(ctx context.Context, check func() (bool, error)) error
}

// Network is what the host has set up so far. Only this is ever removed: what a
// container with the capability did itself stays.
type Network struct {
	devices Devices

	mu         sync.Mutex // serialises the commands; guards what follows
	handle     *netlink.Handle
	interfaces map[int]hyperstart.Interface // by the kernel's index
	routes     hyperstart.Routes
}

// New returns a network in which nothing is set up.
func New(devices Devices) *Network {
	return &Network{devices: devices, interfaces: map[int]hyperstart.Interface{}}
}

// open opens the netlink socket at the first command.
func (n *Network) open() (err error) {
	if n.handle != nil {
		return nil
	}
	if n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	return nil
}
