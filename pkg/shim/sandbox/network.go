package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
)

// PodNetwork says where the network of a pod is. The zero value is a new
// network namespace, which may get its interfaces later.
type PodNetwork struct {
	Path string // of the network namespace; "" for a new one
	Own  bool   // the namespace is a pod's, in which no other processes live
	Host bool   // a pod asks for the host's network
}

// sandboxAnnotations are how the CRI's implementations mark a pod's own container.
var sandboxAnnotations = []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"}

// networkOf reads the network out of a specification. Without a namespace of
// its own a container would be in the host's network, which the guest cannot
// be: for a pod, that is what was asked for, and it is refused; a container
// that is no pod says nothing by that as a rule, and gets one of its own.
func networkOf(spec *specs.Spec) PodNetwork {
	pod := false
	for _, key := range sandboxAnnotations {
		pod = pod || spec.Annotations[key] == "sandbox"
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return PodNetwork{Path: ns.Path, Own: pod}
		}
	}
	return PodNetwork{Host: pod}
}

// podNetwork mirrors a network namespace into the guest.
type podNetwork struct {
	ns    *network.Namespace
	watch *network.Watcher

	mu     sync.Mutex // guards the fields below, held while the guest is told
	ports  []*netPort
	stuck  []string          // devices that the guest has not let go of
	count  int               // interfaces so far, for their ids
	routes hyperstart.Routes // wanted
	told   *hyperstart.Routes

	// Set by boot, not changed afterwards.
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
}

// netPort is an interface of the guest and the link that it stands for.
type netPort struct {
	id   string
	link network.Endpoint
	told *hyperstart.Interface // what the guest knows; nil before it does
	tap  *os.File              // nil once the VMM has it
}

// openNetwork opens the pod's namespace, or makes one.
func openNetwork(pod PodNetwork) (*podNetwork, error) {
	if pod.Host {
		return nil, fmt.Errorf("open network: %w", network.ErrHost)
	}
	open := network.New
	if pod.Path != "" {
		open = func() (*network.Namespace, error) { return network.Open(pod.Path) }
	}
	ns, err := open()
	if err != nil {
		return nil, err
	}
	watch, err := ns.Watch()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &podNetwork{ns: ns, watch: watch}, nil
}

// takeNetwork opens and records the pod's namespace. The links in it are given
// back by the removal of the record, after the VMM has ended.
func (s *Sandbox) takeNetwork(pod PodNetwork) error {
	n, err := openNetwork(pod)
	if err != nil {
		return err
	}
	s.network = n
	s.undo.add(func(context.Context) error { return n.close() })
	if pod.Path == "" {
		return nil // ends with the sandbox
	}
	state, err := s.dir.Load()
	if err != nil {
		return err
	}
	state.NetNS = pod.Path
	return s.dir.Save(state)
}

// close ends the mirroring. It does not wait for the guest.
func (n *podNetwork) close() error {
	errs := []error{n.watch.Close()}
	if n.done != nil {
		n.cancel()
		<-n.done
	}
	n.mu.Lock() // a Start may be bringing the guest up to date
	defer n.mu.Unlock()
	for _, p := range n.ports {
		errs = append(errs, p.closeTap())
	}
	return errors.Join(append(errs, n.ns.Close())...)
}

func (p *netPort) closeTap() error {
	if p.tap == nil {
		return nil
	}
	tap := p.tap
	p.tap = nil
	return tap.Close()
}

// sameLink reports whether two endpoints can be one interface of the guest:
// everything but the addresses is fixed when it is plugged.
func sameLink(a, b network.Endpoint) bool {
	a.Interface.IPAddresses, b.Interface.IPAddresses = nil, nil
	return reflect.DeepEqual(a, b)
}

// refresh reads the namespace, connects links that are new and returns the
// ports of those that are gone.
func (n *podNetwork) refresh() (gone []*netPort, err error) {
	now, err := n.ns.Scan()
	if err != nil {
		return nil, err
	}
	n.routes = now.Routes
	var keep []*netPort
	for _, p := range n.ports {
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
	n.ports = keep
	for _, p := range gone {
		if err := errors.Join(p.closeTap(), n.ns.Disconnect(p.link.Index)); err != nil {
			return gone, err
		}
	}
	for _, e := range now.Endpoints {
		if err := n.connect(e); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// connect makes a tap for an endpoint that has none.
func (n *podNetwork) connect(e network.Endpoint) error {
	for _, p := range n.ports {
		if p.link.Index == e.Index {
			return nil
		}
	}
	tap, err := n.ns.Connect(e)
	if err != nil {
		return err
	}
	n.ports = append(n.ports, &netPort{id: fmt.Sprintf("net%d", n.count), link: e, tap: tap})
	n.count++
	return nil
}

// plug gives the VMM the taps that it does not have. Those that it does not take
// do not keep the others from it.
func (n *podNetwork) plug(ctx context.Context, vm hypervisor.VM) error {
	var errs []error
	for _, p := range n.ports {
		if p.tap == nil {
			continue
		}
		err := vm.Plug(ctx, hypervisor.NetDevice{
			ID: p.id, MAC: p.link.Interface.MAC, MTU: p.link.Interface.MTU, Tap: p.tap,
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("plug interface %s: %w", p.link.Interface.NewDevice, err))
			continue
		}
		errs = append(errs, p.closeTap())
	}
	return errors.Join(errs...)
}

// unplug takes away the devices of ports that are gone. What the guest does not
// let go of in time is asked for again with the next change.
func (n *podNetwork) unplug(ctx context.Context, vm hypervisor.VM, gone []*netPort, limit time.Duration) error {
	for _, p := range gone {
		n.stuck = append(n.stuck, p.id)
	}
	var errs []error
	var still []string
	for _, id := range n.stuck {
		ctx, cancel := context.WithTimeout(ctx, limit)
		err := vm.Unplug(ctx, id)
		cancel()
		if err != nil && !errdefs.IsNotFound(err) { // it may never have been plugged
			still = append(still, id)
			errs = append(errs, fmt.Errorf("unplug interface %s: %w", id, err))
		}
	}
	n.stuck = still
	return errors.Join(errs...)
}

// configure tells a ccv2 guest what has changed of the interfaces that it has.
func (n *podNetwork) configure(call func(name string, data any) error) error {
	lacks := map[string]bool{}
	for _, p := range n.ports {
		now := p.link.Interface
		if lacks[now.NewDevice] = p.tap != nil; p.tap != nil {
			continue
		}
		if p.told != nil && reflect.DeepEqual(*p.told, now) {
			continue
		}
		if err := call("setupinterface", now); err != nil {
			return err
		}
		p.told = &now
		n.told = nil // routes can hang on an interface or an address
	}
	if n.told == nil && len(n.ports) == 0 && len(n.routes.Routes) == 0 {
		return nil // there is nothing but a loopback, as in every guest
	}
	routes := without(n.routes, lacks)
	if n.told != nil && reflect.DeepEqual(*n.told, routes) {
		return nil
	}
	if err := call("setuproute", routes); err != nil {
		return err
	}
	n.told = &routes
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

// connectNetwork makes the taps, while the guest's kernel boots.
func (s *Sandbox) connectNetwork() error {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	_, err := s.network.refresh()
	return err
}

// plugNetwork gives the guest its interfaces. It comes before STARTPOD, whose
// kernel parameters can be about them.
func (s *Sandbox) plugNetwork(ctx context.Context) error {
	defer func() { s.timing.Network = time.Now() }()
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	if err := s.network.plug(ctx, s.vm); err != nil {
		return err
	}
	if s.dialect != hyperstart.DialectCCv2 {
		return nil // STARTPOD configures them
	}
	return s.network.configure(func(name string, data any) error {
		_, err := s.client.Hyper(ctx, name, "", data)
		return fromGuest(err)
	})
}

// followNetwork lets the guest have what changes in the namespace later, until
// the sandbox ends. It is called by boot; the goroutine begins after that.
func (s *Sandbox) followNetwork(ctx context.Context) {
	if s.dialect != hyperstart.DialectCCv2 {
		return
	}
	ctx, s.network.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.network.done = make(chan struct{})
	go func() {
		defer close(s.network.done)
		select {
		case <-s.booted:
			s.mirror(ctx)
		case <-ctx.Done():
		}
	}()
}

// networkRetry is the pause after a change that the guest could not be told,
// for example because it was paused.
const networkRetry = 2 * time.Second

// mirror does what followNetwork promises.
func (s *Sandbox) mirror(ctx context.Context) {
	var wait time.Duration
	for ctx.Err() == nil && s.network.watch.Wait(wait) == nil {
		wait = 0
		if err := s.updateNetwork(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).WithField("sandbox", s.opts.ID).Warn("update network of guest")
			wait = networkRetry
		}
	}
}

// updateNetwork brings the guest up to date.
func (s *Sandbox) updateNetwork(ctx context.Context) error {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	gone, err := s.network.refresh()
	err = errors.Join(err, s.network.unplug(ctx, s.vm, gone, s.opts.VM.CallTimeout))
	err = errors.Join(err, s.network.plug(ctx, s.vm))
	return errors.Join(err, s.network.configure(func(name string, data any) error {
		_, err := s.call(ctx, name, "", data)
		return err
	}))
}
