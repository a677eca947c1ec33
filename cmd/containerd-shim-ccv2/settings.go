package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/manager"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// sandboxOptions reads the configuration. Create reports a problem with it: a
// shim that does not serve has no other way to say it.
func sandboxOptions(ctx context.Context, namespace, id string, to sink, tap *wiretap.Tap, serve func(dir string) (func() error, error)) (*podvm.Machine, sandbox.Options, debug.Heartbeat) {
	vm, endAfter, err := machineOptions(ctx)
	vm.Namespace, vm.ID, vm.Serve, vm.Note, vm.Tap = namespace, id, serve, to.history.Note, tap
	m := podvm.New(vm)
	beat := debug.DefaultHeartbeat
	beat.EndAfter = endAfter
	return m, sandbox.Options{
		Namespace: namespace, ID: id, Sink: to, ConfigErr: err,
		Machine: machine{m},
		// A command and a half: a guest that is only slow answers in that time.
		KillTimeout: vm.Config.CallTimeout * 3 / 2,
	}, beat
}

// machineOptions turns the configuration into what a VM is made with. The
// working directory is the bundle of the sandbox container. StateDir is set even
// when there is an error. endAfter is how long the sandbox may be ill.
func machineOptions(ctx context.Context) (_ podvm.Options, endAfter time.Duration, err error) {
	path := config.DefaultPath
	if p := os.Getenv(config.EnvPath); p != "" {
		path = p
	}
	own, err := bundle.Load(".")
	if err != nil {
		return podvm.Options{StateDir: config.Defaults().StateDir}, 0, err
	}
	c, err := config.Load(path, own.Spec.Annotations)
	opts := podvm.Options{StateDir: c.StateDir, ShimCgroup: os.Getenv(manager.EnvShimCgroup)}
	if err != nil {
		return opts, 0, fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	accel, reason, err := qemu.Resolve(hypervisor.Accelerator(c.Hypervisor.Accelerator), qemu.LocalHost())
	if err != nil {
		return opts, 0, err
	}
	if reason != "" {
		log.G(ctx).WithField("reason", reason).Info("no kvm: guests are emulated (tcg), deadlines are longer")
	}
	sized := c
	sized.VM = vmconfig.Size(c.VM, own.Limits())
	if opts.Config, err = vmconfig.Of(sized, accel); err != nil {
		return opts, 0, err
	}
	if len(own.Spec.Annotations) > 0 { // templates have the host's sizes, not those of one pod
		host, err := config.Load(path, nil)
		if err != nil {
			return opts, 0, err
		}
		c.VM = host.VM
	}
	opts.Source = source(ctx, c, opts.Config)
	return opts, time.Duration(c.Health.EndAfter), nil
}
