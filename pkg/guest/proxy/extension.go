package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// extensions are the commands that the proxy carries out itself, by name.
var extensions = map[string]func(context.Context, *clientConn, proxyproto.Hyper) error{
	proxyproto.HyperCredit:     runCredit,
	proxyproto.HyperDrainStdin: runDrainStdin,
}

func runCredit(_ context.Context, c *clientConn, r proxyproto.Hyper) error {
	if c.session == nil {
		return errors.New("client isn't a shim")
	}
	var consumed proxyproto.Consumed
	if err := json.Unmarshal(r.Data, &consumed); err != nil {
		return fmt.Errorf("decode %s: %w", r.HyperName, err)
	}
	out := &c.session.out
	out.setWindowed()
	for i, n := range []int{consumed.Stdout, consumed.Stderr} {
		if n > 0 {
			out.consumed(i, n)
		}
	}
	return nil
}

func runDrainStdin(ctx context.Context, c *clientConn, r proxyproto.Hyper) error {
	if c.vm == nil {
		return errors.New("client not attached to a vm")
	}
	if len(r.Tokens) != 1 {
		return fmt.Errorf("expected 1 token, got %d", len(r.Tokens))
	}
	var drain proxyproto.DrainStdin
	if err := json.Unmarshal(r.Data, &drain); err != nil {
		return fmt.Errorf("decode %s: %w", r.HyperName, err)
	}
	s, err := c.vm.find(r.Tokens[0])
	if err != nil {
		return err
	}
	ctx, stop := c.watch(ctx)
	defer stop()
	return s.stdin.drain(ctx, drain.Below)
}
