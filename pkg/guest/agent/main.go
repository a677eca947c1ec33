package agent

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
)

// Main is [Run] for PID 1: when the guest cannot continue, it says why on the
// console and powers off. It does not return.
func Main(ctx context.Context, cfg Config) {
	console.Fatal(Run(ctx, cfg))
	select {}
}
