package client

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// resolver is a [Resolver].
type resolver struct{ caller *caller }

// RelayDNS implements [Resolver].
func (r resolver) RelayDNS(ctx context.Context, req hyperstart.RelayDNSRequest) error {
	_, err := r.caller.call(ctx, "relaydns", "", req)
	return err
}

// AnswerDNS implements [Resolver].
func (r resolver) AnswerDNS(ctx context.Context, a hyperstart.DNSMessage) error {
	_, err := r.caller.call(ctx, "answerdns", "", a)
	return err
}
