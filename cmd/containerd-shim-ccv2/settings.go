package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// sandboxOptions turns the configuration into what a sandbox is made with. The
// working directory is the bundle of the sandbox's own container.
func sandboxOptions(ctx context.Context) (sandbox.Options, error) {
	path := config.DefaultPath
	if p := os.Getenv(config.EnvPath); p != "" {
		path = p
	}
	bundle, err := readBundle("config.json")
	if err != nil {
		return sandbox.Options{StateDir: config.Defaults().StateDir}, err
	}
	c, err := config.Load(path, bundle.Annotations)
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
	c.VM = vmconfig.Size(c.VM, vmconfig.LimitsOf(bundle.Annotations, bundle.limits()))
	opts.VM, err = vmconfig.Of(c, accel)
	return opts, err
}

// bundleSpec is the part of an OCI specification that decides about the VM.
type bundleSpec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       *struct {
		Resources *specs.LinuxResources `json:"resources"`
	} `json:"linux"`
}

func readBundle(path string) (bundleSpec, error) {
	var spec bundleSpec
	b, err := os.ReadFile(path)
	if err != nil {
		return spec, fmt.Errorf("read bundle: %w", err)
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return spec, fmt.Errorf("read bundle: %s: %w", path, err)
	}
	return spec, nil
}

// limits are those of the container itself.
func (b bundleSpec) limits() vmconfig.Limits {
	var l vmconfig.Limits
	if b.Linux == nil || b.Linux.Resources == nil {
		return l
	}
	if cpu := b.Linux.Resources.CPU; cpu != nil && cpu.Quota != nil && cpu.Period != nil {
		l.CPUQuota, l.CPUPeriod = *cpu.Quota, *cpu.Period
	}
	if memory := b.Linux.Resources.Memory; memory != nil && memory.Limit != nil {
		l.Memory = *memory.Limit
	}
	return l
}
