package vmconfig

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spare"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// TemplateStore is the store that the configuration names.
func TemplateStore(c config.Config) *template.Store {
	return &template.Store{Dir: c.Template.Dir, MaxBytes: int64(c.Template.MaxMiB) << 20}
}

// SparePool has the VMs that are kept ready.
func SparePool(c config.Config) *spare.Pool {
	pool := spare.PoolOf(c.StateDir)
	pool.Idle = time.Duration(c.Template.SpareIdle)
	return pool
}

// SpareText says how many VMs are kept ready, or what that would be good for: with KVM little.
func SpareText(c config.Config, accel hypervisor.Accelerator) string {
	switch {
	case c.Template.Spare == 0 && accel == hypervisor.AccelTCG:
		return "; [template] spare = 1 would halve the time of their start, for 110 MiB"
	case c.Template.Spare == 0:
		return ""
	}
	all, err := SparePool(c).List()
	if err != nil {
		return "; spare VMs: " + err.Error()
	}
	return fmt.Sprintf("; %d spare VMs are ready ([template] spare = %d, spare_idle = %s)", len(all), c.Template.Spare, time.Duration(c.Template.SpareIdle))
}

// MakeTemplate makes the template of a source, unless there is one. Its VM is in a group of its
// own, if that can be: it is not worth less elsewhere.
func MakeTemplate(ctx context.Context, s *template.Source, group *hostcgroup.Aside) (*template.Template, error) {
	key, err := s.VM.Key()
	if err != nil {
		return nil, err
	}
	if t, err := s.Store.Open(key); err == nil && s.Store.Failed(key) == "" {
		return t, nil
	}
	if err := group.Enter(ctx); err != nil {
		log.G(ctx).WithError(err).Warn("make a template: its VM counts for the cgroup of who makes it")
	}
	defer func() {
		if err := group.Leave(); err != nil {
			log.G(ctx).WithError(err).Warn("make a template: leave its cgroup")
		}
	}()
	return s.Store.Make(ctx, s.VM)
}

// TemplateVM is what a template for a VM is made of. c is the host's configuration, which has
// the usual size; version is ccv2's.
func TemplateVM(c config.Config, vm podvm.Config, driver template.Driver, version string) template.VM {
	return template.VM{Driver: driver, Version: version, Spec: vm.Spec, Dialect: vm.Dialect, Sizes: templateSizes(c.VM, vm.Spec.Accelerator)}
}

// What a VM from a template can become. A kernel keeps some memory for each vCPU that there
// can be, and a processor may address no more than 512 GiB, of which devices need some.
const (
	mostVCPUs     = 8
	mostMemoryMiB = 256 << 10
)

// templateSizes are the usual size and the least one, for pods that are smaller than usual.
func templateSizes(vm config.VM, accel hypervisor.Accelerator) template.Sizes {
	usual := Size(vm, bundle.Limits{})
	// A host that has a little more or less at times has the same templates.
	usual.MaxMemoryMiB = (usual.MaxMemoryMiB + 1023) &^ 1023
	sizes := template.Sizes{Max: hypervisor.Size{CPUs: min(usual.MaxVCPUs, mostVCPUs), MemoryMiB: min(usual.MaxMemoryMiB, mostMemoryMiB)}}
	if accel == hypervisor.AccelTCG {
		// Newer kernels of Linux (6.12.118) take no processors later where they do not know the
		// hypervisor, as they do not know TCG.
		sizes.Max.CPUs = 0
	}
	for _, cpus := range []int{1, usual.VCPUs} {
		for _, mib := range []int{leastMemoryMiB, usual.MemoryMiB} {
			sizes.Templates = append(sizes.Templates, hypervisor.Size{CPUs: cpus, MemoryMiB: mib})
		}
	}
	return sizes
}
