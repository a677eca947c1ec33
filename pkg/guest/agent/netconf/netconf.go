package netconf

import (
	"context"
	"fmt"

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

	// turn has a token for the one command that may change the network. Whoever
	// has it may use what follows. It is not held while a device is awaited.
	turn       chan struct{}
	handle     *netlink.Handle
	interfaces map[int]hyperstart.Interface // by the kernel's index
	routes     hyperstart.Routes
}

// New returns a network in which nothing is set up.
func New(devices Devices) *Network {
	return &Network{devices: devices, turn: make(chan struct{}, 1), interfaces: map[int]hyperstart.Interface{}}
}

// acquire waits for the turn of a command, and opens the netlink socket for the
// first one.
func (n *Network) acquire(ctx context.Context) (err error) {
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.handle != nil {
		return nil
	}
	if n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		n.release()
		return fmt.Errorf("open netlink socket: %w", err)
	}
	return nil
}

func (n *Network) release() { <-n.turn }
