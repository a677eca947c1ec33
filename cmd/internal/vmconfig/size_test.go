package vmconfig

import (
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

func TestSize(t *testing.T) {
	base := config.VM{VCPUs: 1, MemoryMiB: 512, OverheadMiB: 96, MaxVCPUs: 8, MaxMemoryMiB: 4096}
	for _, tc := range []struct {
		name         string
		limits       bundle.Limits
		vcpus, memMB int
	}{
		{"no limits", bundle.Limits{}, 1, 512},
		{"half a cpu", bundle.Limits{CPUQuota: 50000, CPUPeriod: 100000}, 1, 512},
		{"two and a bit", bundle.Limits{CPUQuota: 200001, CPUPeriod: 100000}, 3, 512},
		{"no quota", bundle.Limits{CPUQuota: -1, CPUPeriod: 100000}, 1, 512},
		{"above the maximum", bundle.Limits{CPUQuota: 9900000, CPUPeriod: 100000, Memory: 1 << 40}, 8, 4096},
		{"memory", bundle.Limits{Memory: 1 << 30}, 1, 1024 + 96},
		{"an odd byte", bundle.Limits{Memory: 1<<30 + 1}, 1, 1025 + 96},
		{"little memory", bundle.Limits{Memory: 1 << 20}, 1, leastMemoryMiB},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Size(base, tc.limits)
			if got.VCPUs != tc.vcpus || got.MemoryMiB != tc.memMB {
				t.Errorf("got %d vCPUs, %d MiB, want %d, %d", got.VCPUs, got.MemoryMiB, tc.vcpus, tc.memMB)
			}
		})
	}
}
