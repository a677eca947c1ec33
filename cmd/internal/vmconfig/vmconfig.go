package vmconfig

import (
	"slices"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
)

// tcgFactor is how much longer everything in the guest may take under
// emulation: five times slower was measured, and a loaded host needs room.
const tcgFactor = 6

// Of returns the VM of a valid configuration; accel is what the configured
// accelerator was resolved to.
func Of(c config.Config, accel hypervisor.Accelerator) (podvm.Config, error) {
	var dialect hyperstart.Dialect // the guest says, unless the configuration does
	if c.Guest.Dialect != "auto" {
		var err error
		if dialect, err = hyperstart.ParseDialect(c.Guest.Dialect); err != nil {
			return podvm.Config{}, err
		}
	}
	factor := time.Duration(1)
	if accel == hypervisor.AccelTCG {
		factor = tcgFactor
	}
	args := slices.Clone(c.Guest.KernelArgs)
	if c.Guest.Console {
		args = append(args, "loglevel=7")
	}
	if c.Guest.ConsoleInput {
		args = append(args, layout.ShellArg+"="+layout.Shell)
	}
	return podvm.Config{
		Spec: hypervisor.Spec{
			Binary:       c.Hypervisor.Path,
			Machine:      hypervisor.Machine(c.Hypervisor.Machine),
			Accelerator:  accel,
			Size:         hypervisor.Size{CPUs: c.VM.VCPUs, MemoryMiB: c.VM.MemoryMiB},
			SharedMemory: c.Share.Type == "virtiofs", // virtiofsd maps the guest's memory
			Image:        hypervisor.Image{Kernel: c.Guest.Kernel, Initrd: c.Guest.Image, KernelArgs: args},
		},
		ShareType:     c.Share.Type,
		VirtioFSD:     c.Share.VirtioFSD,
		HostMemoryMiB: c.VM.HostMemoryMiB,
		// An emulated guest's notifications come by way of QEMU in any case.
		VhostNet:     c.VM.VhostNet && accel == hypervisor.AccelKVM,
		Dialect:      dialect,
		BootTimeout:  time.Duration(c.Guest.BootTimeout) * factor,
		CallTimeout:  time.Duration(c.Guest.CallTimeout) * factor,
		ProxySocket:  c.Proxy.Socket,
		ConsoleInput: c.Guest.ConsoleInput,
	}, nil
}
