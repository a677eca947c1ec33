package spare

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// guest is what a guest can that goes on from another one.
type guest interface {
	Reseed(ctx context.Context, entropy []byte) error
	WarmUp(ctx context.Context) error
}

// prepare gives the guest random numbers of its own, and has it do once what a pod will have it do.
func prepare(ctx context.Context, vm hypervisor.VM, ns *network.Namespace, source *template.Source) (err error) {
	var conns [2]net.Conn
	for i, port := range []string{layout.CtlPort, layout.TTYPort} {
		if conns[i], err = vm.Dial(ctx, port); err != nil {
			return err // the VM ends, and its connections
		}
	}
	server := proxy.NewServer(proxy.Options{Dialect: source.VM.Dialect, Restored: true})
	defer server.Close()
	g, err := client.Dial(ctx, client.Options{Server: server, VM: "spare", Ctl: conns[0], TTY: conns[1]})
	if err != nil {
		return err
	}
	defer g.Close()
	able, ok := g.(guest)
	if !ok {
		return fmt.Errorf("a guest of dialect %s takes no random numbers", g.Dialect())
	}
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails
	if err := able.Reseed(ctx, entropy); err != nil {
		return err
	}
	if err := warmUpNetwork(ctx, vm, ns, g); err != nil {
		return err
	}
	return able.WarmUp(ctx)
}

// warmUpNetwork plugs an interface, sets it up as one of a pod is, and takes it out again, so that
// a pod's finds the drivers and the agent's part of it read, and, by an emulated processor,
// translated. Its tap leads nowhere. A VM without that is as good, only slower, so it is an error alone
// when the interface stays.
func warmUpNetwork(ctx context.Context, vm hypervisor.VM, ns *network.Namespace, g client.Guest) error {
	const id, mac, mtu = "warmup", "02:00:00:00:00:01", 1500
	plugger, ok := vm.(hypervisor.Plugger)
	if !ok {
		return nil // no pod will plug anything either
	}
	tap, err := ns.Tap(mtu)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil // a host without taps: its pods have no interface
	}
	if err != nil {
		warnCold(ctx, err)
		return nil
	}
	err = plugger.Plug(ctx, hypervisor.NetDevice{ID: id, MAC: mac, MTU: mtu, Tap: tap})
	if err := errors.Join(err, tap.Close()); errdefs.IsNotImplemented(err) {
		return nil
	} else if err != nil {
		return err
	}
	if err := useInterface(ctx, g, mac, mtu); err != nil {
		warnCold(ctx, err)
	}
	return plugger.Unplug(ctx, id)
}

func warnCold(ctx context.Context, cause error) {
	log.G(ctx).WithError(cause).Warn("a spare VM has not had an interface: that of its pod takes longer")
}

// useInterface has the guest set up an interface, and forget its routes.
func useInterface(ctx context.Context, g client.Guest, mac string, mtu int) error {
	if err := g.SetInterface(ctx, hyperstart.Interface{
		Device: "eth0", NewDevice: "eth0", MAC: mac, MTU: mtu,
		IPAddresses: []hyperstart.Address{{IP: "192.0.2.1", Mask: "24"}}, // RFC 5737: nobody's
	}); err != nil {
		return err
	}
	return errors.Join(g.SetRoutes(ctx, hyperstart.Routes{Routes: []hyperstart.Route{
		{Dest: "192.0.2.0/24", Device: "eth0", Scope: unix.RT_SCOPE_LINK},
		{Dest: "default", Gateway: "192.0.2.2", Device: "eth0"},
	}}), g.SetRoutes(ctx, hyperstart.Routes{}))
}
