package sandbox

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podnet"
)

// openNetwork opens and records the pod's namespace. Its links are released by
// the removal of the record, after the VMM has ended.
func (s *Sandbox) openNetwork(where bundle.Network) error {
	n, err := podnet.Open(where, s.opts.VM.CallTimeout)
	if err != nil {
		return err
	}
	s.network = n
	s.undo.add(func(context.Context) error { return n.Close() })
	if where.Path == "" {
		return nil // ends with the sandbox
	}
	state, err := s.dir.Load()
	if err != nil {
		return err
	}
	state.NetNS = where.Path
	return s.dir.Save(state)
}

// guestNetwork is the guest's side of its network. An original guest takes it
// with STARTPOD alone.
type guestNetwork struct {
	s          *Sandbox
	interfaces []hyperstart.Interface
	routes     hyperstart.Routes
}

// SetInterface implements [podnet.Configurer].
func (g *guestNetwork) SetInterface(ctx context.Context, i hyperstart.Interface) error {
	if g.s.dialect != hyperstart.DialectCCv2 {
		g.interfaces = append(g.interfaces, i)
		return nil
	}
	return g.call(ctx, "setupinterface", i)
}

// SetRoutes implements [podnet.Configurer].
func (g *guestNetwork) SetRoutes(ctx context.Context, r hyperstart.Routes) error {
	if g.s.dialect != hyperstart.DialectCCv2 {
		g.routes = r
		return nil
	}
	return g.call(ctx, "setuproute", r)
}

func (g *guestNetwork) call(ctx context.Context, name string, data any) error {
	if g.s.State() == Booting {
		_, err := g.s.client.Hyper(ctx, name, "", data)
		return fromGuest(err)
	}
	_, err := g.s.call(ctx, name, "", data)
	return err
}
