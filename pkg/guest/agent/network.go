package agent

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func (a *Agent) setupInterface(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.Interface](payload)
	if err != nil {
		return nil, err
	}
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	return nil, a.network.SetInterface(ctx, req)
}

func (a *Agent) setupRoute(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.Routes](payload)
	if err != nil {
		return nil, err
	}
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	return nil, a.network.SetRoutes(ctx, req)
}
