package vmconfig_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// TestTemplateSizes: there are few, whatever pods ask for.
func TestTemplateSizes(t *testing.T) {
	c := config.Defaults()
	c.VM.MaxVCPUs, c.VM.MaxMemoryMiB, c.VM.VCPUs = 64, 1<<20, 2
	want := template.Sizes{
		Templates: []hypervisor.Size{{CPUs: 1, MemoryMiB: 192}, {CPUs: 1, MemoryMiB: 512}, {CPUs: 2, MemoryMiB: 192}, {CPUs: 2, MemoryMiB: 512}},
		Max:       hypervisor.Size{CPUs: 8, MemoryMiB: 256 << 10},
	}
	for accel, vcpus := range map[hypervisor.Accelerator]int{hypervisor.AccelKVM: 8, hypervisor.AccelTCG: 0} {
		want.Max.CPUs = vcpus
		vm := podvm.Config{Spec: hypervisor.Spec{Accelerator: accel}}
		if diff := cmp.Diff(want, vmconfig.TemplateVM(c, vm, nil, "").Sizes); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", accel, diff)
		}
	}
}

// TestSpareText: where guests are emulated it says that VMs can be kept ready.
func TestSpareText(t *testing.T) {
	c := config.Defaults()
	c.StateDir = t.TempDir()
	for _, tt := range []struct {
		spare int
		accel hypervisor.Accelerator
		want  string
	}{
		{0, hypervisor.AccelKVM, ""},
		{0, hypervisor.AccelTCG, "; [template] spare = 1 would halve the time of their start, for 110 MiB"},
		{2, hypervisor.AccelKVM, "; 0 spare VMs are ready ([template] spare = 2, spare_idle = 30m0s)"},
	} {
		c.Template.Spare = tt.spare
		if got := vmconfig.SpareText(c, tt.accel); got != tt.want {
			t.Errorf("%d, %s: %q, want %q", tt.spare, tt.accel, got, tt.want)
		}
	}
}
