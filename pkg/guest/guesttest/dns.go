package guesttest

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// RelayDNS implements [client.Resolver]. Nothing in this guest asks.
func (g *Guest) RelayDNS(ctx context.Context, _ hyperstart.RelayDNSRequest) error {
	return g.enter(ctx, Call{Method: "RelayDNS"})
}

// AnswerDNS implements [client.Resolver].
func (g *Guest) AnswerDNS(ctx context.Context, _ hyperstart.DNSMessage) error {
	return g.enter(ctx, Call{Method: "AnswerDNS"})
}
