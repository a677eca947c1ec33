package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// tcgFactor is how much longer everything in the guest may take under
// emulation: five times slower was measured, and a loaded host needs room.
const tcgFactor = 6

// sandboxOptions turns the configuration into what a sandbox is made with. The
// working directory is the bundle of the sandbox's own container.
func sandboxOptions(ctx context.Context) (sandbox.Options, error) {
	path := config.DefaultPath
	if p := os.Getenv(config.EnvPath); p != "" {
		path = p
	}
	annotations, err := bundleAnnotations("config.json")
	if err != nil {
		return sandbox.Options{StateDir: config.Defaults().StateDir}, err
	}
	c, err := config.Load(path, annotations)
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
	opts.VM, err = vmConfig(c, accel)
	return opts, err
}

func vmConfig(c config.Config, accel hypervisor.Accelerator) (sandbox.VMConfig, error) {
	dialect := hyperstart.DialectUnknown
	if c.Guest.Dialect != "auto" {
		var err error
		if dialect, err = hyperstart.ParseDialect(c.Guest.Dialect); err != nil {
			return sandbox.VMConfig{}, err
		}
	}
	factor := time.Duration(1)
	if accel == hypervisor.AccelTCG {
		factor = tcgFactor
	}
	args := c.Guest.KernelArgs
	if c.Guest.Console {
		args = append(args, "loglevel=7")
	}
	return sandbox.VMConfig{
		Spec: hypervisor.Spec{
			Binary:       c.Hypervisor.Path,
			Machine:      hypervisor.Machine(c.Hypervisor.Machine),
			Accelerator:  accel,
			CPUs:         c.VM.VCPUs,
			MemoryMiB:    c.VM.MemoryMiB,
			SharedMemory: c.Share.Type == "virtiofs", // virtiofsd maps the guest's memory
			Kernel:       c.Guest.Kernel,
			Initrd:       c.Guest.Image,
			KernelArgs:   args,
		},
		ShareType:   c.Share.Type,
		VirtioFSD:   c.Share.VirtioFSD,
		Dialect:     dialect,
		BootTimeout: time.Duration(c.Guest.BootTimeout) * factor,
		CallTimeout: time.Duration(c.Guest.CallTimeout) * factor,
		ProxySocket: c.Proxy.Socket,
	}, nil
}

// bundleAnnotations reads the annotations of a specification.
func bundleAnnotations(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("read bundle: %s: %w", path, err)
	}
	return spec.Annotations, nil
}
