package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// sandboxOptions turns the configuration into what a sandbox is made with. The
// working directory is the bundle of the sandbox container.
func sandboxOptions(ctx context.Context) (sandbox.Options, error) {
	path := config.DefaultPath
	if p := os.Getenv(config.EnvPath); p != "" {
		path = p
	}
	own, err := bundle.Load(".")
	if err != nil {
		return sandbox.Options{StateDir: config.Defaults().StateDir}, err
	}
	c, err := config.Load(path, own.Spec.Annotations)
	opts := sandbox.Options{StateDir: c.StateDir}
	if err != nil {
		return opts, fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	accel, reason, err := qemu.Resolve(hypervisor.Accelerator(c.Hypervisor.Accelerator), qemu.LocalHost())
	if err != nil {
		return opts, err
	}
	if reason != "" {
		log.G(ctx).WithField("reason", reason).Info("no kvm: guests are emulated (tcg), deadlines are longer")
	}
	opts.Driver = qemu.New(qemu.Options{})
	c.VM = vmconfig.Size(c.VM, own.Limits())
	opts.VM, err = vmconfig.Of(c, accel)
	return opts, err
}
