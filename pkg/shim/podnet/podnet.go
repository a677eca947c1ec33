package podnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
)

// Plugger is the VM's side: it takes devices and gives them up.
type Plugger interface {
	Plug(ctx context.Context, d hypervisor.Device) error
	Unplug(ctx context.Context, id string) error
}

// Configurer is the guest's side. Both methods replace what was set before.
type Configurer interface {
	SetInterface(ctx context.Context, i hyperstart.Interface) error
	SetRoutes(ctx context.Context, r hyperstart.Routes) error
}

// retryAfter is the pause after a change that could not be applied, for example
// because the guest was paused.
const retryAfter = 2 * time.Second

// Network mirrors a network namespace into a guest.
type Network struct {
	ns          *network.Namespace
	watch       *network.Watcher
	unplugLimit time.Duration
	ports       ports
	vm          Plugger               // set by Attach
	guest       Configurer            // set by Attach
	also        func(context.Context) // set by Follow

	requests chan chan<- error
	done     chan struct{} // closed when the reconciler has ended
	cancel   context.CancelFunc
	wg       sync.WaitGroup // the goroutines of Follow
}

// Open opens the pod's namespace, or makes one. The host's is refused with
// [network.ErrHost]; one that does not exist is errdefs.ErrNotFound. unplugLimit
// is how long one device may take to leave the guest. The caller must Close the
// Network.
func Open(n bundle.Network, unplugLimit time.Duration) (*Network, error) {
	if n.Host {
		return nil, fmt.Errorf("open network: %w", network.ErrHost)
	}
	open := network.New
	if n.Path != "" {
		open = func() (*network.Namespace, error) { return network.Open(n.Path) }
	}
	ns, err := open()
	if err != nil {
		return nil, err
	}
	watch, err := ns.Watch()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &Network{ns: ns, watch: watch, unplugLimit: unplugLimit, requests: make(chan chan<- error), done: make(chan struct{})}, nil
}

// UseVhost has the host's kernel carry the frames of interfaces that are plugged from now on,
// where its [network.VhostDevice] opens.
func (n *Network) UseVhost() { n.ports.vhost = network.VhostDevice }

// File is the namespace for those who enter it. It stays the Network's.
func (n *Network) File() *os.File { return n.ns.File() }

// Cookie is the kernel's name for the namespace; see [network.Namespace.Cookie].
func (n *Network) Cookie() (uint64, error) { return n.ns.Cookie() }

// ListenLoopback takes over the connections that processes on the host make to
// the namespace's loopback; see [network.Namespace.ListenLoopback].
func (n *Network) ListenLoopback() (*network.Loopback, error) { return n.ns.ListenLoopback() }

// Connect makes a tap for each link. It needs no guest.
func (n *Network) Connect() error {
	_, err := n.ports.refresh(n.ns)
	return err
}

// Attach plugs the taps and configures the interfaces in the guest.
func (n *Network) Attach(ctx context.Context, vm Plugger, guest Configurer) error {
	n.vm, n.guest = vm, guest
	if err := n.ports.plug(ctx, vm); err != nil {
		return err
	}
	return n.ports.configure(ctx, guest)
}

// Follow lets the guest have what changes in the namespace from now on, until
// Close. also is called whenever something may have changed.
func (n *Network) Follow(ctx context.Context, also func(context.Context)) {
	n.also = also
	ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	changed := make(chan struct{}, 1)
	n.wg.Go(func() {
		for n.watch.Wait(0) == nil {
			select {
			case changed <- struct{}{}:
			default: // one reconciliation serves both
			}
		}
	})
	n.wg.Go(func() {
		defer close(n.done)
		n.run(ctx, changed)
	})
}

// run reconciles at each change and each request.
func (n *Network) run(ctx context.Context, changed <-chan struct{}) {
	var retry <-chan time.Time
	for {
		var reply chan<- error
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
		case reply = <-n.requests:
		}
		retry = nil
		err := n.reconcile(ctx)
		if reply != nil {
			reply <- err // has room for it
		}
		if err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("update the network of the guest")
			retry = time.After(retryAfter)
		}
	}
}

// reconcile brings VM and guest up to date. Every part is tried.
func (n *Network) reconcile(ctx context.Context) error {
	gone, err := n.ports.refresh(n.ns)
	err = errors.Join(err,
		n.ports.unplug(ctx, n.vm, gone, n.unplugLimit),
		n.ports.plug(ctx, n.vm))
	configErr := n.ports.configure(ctx, n.guest)
	n.also(ctx)
	if errdefs.IsNotImplemented(configErr) { // an original guest, whose network is fixed once it runs
		log.G(ctx).WithError(configErr).Info("the guest cannot follow changes of the pod's network")
		configErr = nil
	}
	return errors.Join(err, configErr)
}

// Refresh returns when everything that is in the namespace now is in the guest.
// ctx bounds the wait alone. Before Follow it does nothing.
func (n *Network) Refresh(ctx context.Context) error {
	if n.cancel == nil {
		return nil
	}
	reply := make(chan error, 1)
	select {
	case n.requests <- reply:
	case <-n.done:
		return fmt.Errorf("update network: it is closed: %w", errdefs.ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("update network: %w", ctx.Err())
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return fmt.Errorf("update network: %w", ctx.Err())
	}
}

// Close ends the mirroring and joins its goroutines. It does not wait for the
// guest. Links stay connected to their taps, which end with the VMM.
func (n *Network) Close() error {
	err := n.watch.Close()
	if n.cancel != nil {
		n.cancel()
		n.wg.Wait()
	}
	return errors.Join(err, n.ports.closeTaps(), n.ns.Close())
}
