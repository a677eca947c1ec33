package podnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
)

// ports is what is known of the interfaces of the guest. It belongs to one
// goroutine at a time.
type ports struct {
	list    []*port
	stuck   []string          // devices that the guest has not released
	count   int               // interfaces so far, for their ids
	wanted  hyperstart.Routes // of the namespace
	applied *hyperstart.Routes
	vhost   string // the device that carries the frames; "" is the VMM
}

// port is an interface of the guest and the link that it represents.
type port struct {
	id      string
	link    network.Endpoint
	applied *hyperstart.Interface // what the guest has; nil before it has anything
	tap     *os.File              // nil once the VMM has it
}

// scanner reads a namespace and connects its links; a [network.Namespace].
type scanner interface {
	Scan() (network.Snapshot, error)
	Connect(e network.Endpoint) (*os.File, error)
	Disconnect(index int) error
}

func (p *port) closeTap() error {
	if p.tap == nil {
		return nil
	}
	tap := p.tap
	p.tap = nil
	return tap.Close()
}

func (s *ports) closeTaps() error {
	var errs []error
	for _, p := range s.list {
		errs = append(errs, p.closeTap())
	}
	return errors.Join(errs...)
}

// sameLink reports whether two endpoints can be one interface of the guest:
// everything but the addresses is fixed when it is plugged.
func sameLink(a, b network.Endpoint) bool {
	a.Interface.IPAddresses, b.Interface.IPAddresses = nil, nil
	return reflect.DeepEqual(a, b)
}

// refresh reads the namespace, connects links that are new and returns the
// ports of those that are gone.
func (s *ports) refresh(ns scanner) (gone []*port, err error) {
	now, err := ns.Scan()
	if err != nil {
		return nil, err
	}
	s.wanted = now.Routes
	var keep []*port
	for _, p := range s.list {
		found := false
		for _, e := range now.Endpoints {
			if sameLink(p.link, e) {
				p.link, found = e, true
			}
		}
		if found {
			keep = append(keep, p)
			continue
		}
		gone = append(gone, p)
	}
	s.list = keep
	for _, p := range gone {
		if err := errors.Join(p.closeTap(), ns.Disconnect(p.link.Index)); err != nil {
			return gone, err
		}
	}
	for _, e := range now.Endpoints {
		if err := s.connect(ns, e); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// connect makes a tap for an endpoint that has none.
func (s *ports) connect(ns scanner, e network.Endpoint) error {
	for _, p := range s.list {
		if p.link.Index == e.Index {
			return nil
		}
	}
	tap, err := ns.Connect(e)
	if err != nil {
		return err
	}
	s.list = append(s.list, &port{id: fmt.Sprintf("net%d", s.count), link: e, tap: tap})
	s.count++
	return nil
}

// plug gives the VMM the taps that it does not have. Those that it does not take
// do not keep the others from it.
func (s *ports) plug(ctx context.Context, vm Plugger) error {
	var errs []error
	for _, p := range s.list {
		if p.tap == nil {
			continue
		}
		vhost := s.openVhost(ctx)
		err := vm.Plug(ctx, hypervisor.NetDevice{
			ID: p.id, MAC: p.link.Interface.MAC, MTU: p.link.Interface.MTU, Tap: p.tap, Vhost: vhost,
		})
		if vhost != nil {
			errs = append(errs, vhost.Close())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("plug interface %s: %w", p.link.Interface.NewDevice, err))
			continue
		}
		errs = append(errs, p.closeTap())
	}
	return errors.Join(errs...)
}

// openVhost opens what carries an interface's frames. A host that has none is told so once: the
// VMM carries them then.
func (s *ports) openVhost(ctx context.Context) *os.File {
	if s.vhost == "" {
		return nil
	}
	file, err := network.OpenVhost(s.vhost)
	if err != nil {
		s.vhost = ""
		log.G(ctx).WithError(err).Warn("the pod's network goes through the VMM, which takes more processor time")
		return nil
	}
	return file
}

// unplug removes the devices of ports that are gone. What the guest does not
// release in time is tried again with the next change.
func (s *ports) unplug(ctx context.Context, vm Plugger, gone []*port, limit time.Duration) error {
	for _, p := range gone {
		s.stuck = append(s.stuck, p.id)
	}
	var errs []error
	var still []string
	for _, id := range s.stuck {
		ctx, cancel := context.WithTimeout(ctx, limit)
		err := vm.Unplug(ctx, id)
		cancel()
		if err != nil && !errdefs.IsNotFound(err) { // it may never have been plugged
			still = append(still, id)
			errs = append(errs, fmt.Errorf("unplug interface %s: %w", id, err))
		}
	}
	s.stuck = still
	return errors.Join(errs...)
}

// configure applies in the guest what has changed of the interfaces that it has.
func (s *ports) configure(ctx context.Context, guest Configurer) error {
	lacks := map[string]bool{}
	for _, p := range s.list {
		now := p.link.Interface
		if lacks[now.NewDevice] = p.tap != nil; p.tap != nil {
			continue
		}
		if p.applied != nil && reflect.DeepEqual(*p.applied, now) {
			continue
		}
		if err := guest.SetInterface(ctx, now); err != nil {
			return err
		}
		p.applied = &now
		s.applied = nil // routes can hang on an interface or an address
	}
	if s.applied == nil && len(s.list) == 0 && len(s.wanted.Routes) == 0 {
		return nil // there is nothing but a loopback, as in every guest
	}
	routes := without(s.wanted, lacks)
	if s.applied != nil && reflect.DeepEqual(*s.applied, routes) {
		return nil
	}
	if err := guest.SetRoutes(ctx, routes); err != nil {
		return err
	}
	s.applied = &routes
	return nil
}

// without drops what leads through devices that the guest lacks.
func without(r hyperstart.Routes, lacks map[string]bool) hyperstart.Routes {
	r.Routes = slices.DeleteFunc(slices.Clone(r.Routes), func(route hyperstart.Route) bool {
		return lacks[route.Device] || slices.ContainsFunc(route.NextHops, func(h hyperstart.NextHop) bool { return lacks[h.Device] })
	})
	r.Neighbors = slices.DeleteFunc(slices.Clone(r.Neighbors), func(n hyperstart.Neighbor) bool { return lacks[n.Device] })
	return r
}
