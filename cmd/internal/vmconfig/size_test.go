package vmconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/config"
)

func TestSize(t *testing.T) {
	base := config.VM{VCPUs: 1, MemoryMiB: 512, OverheadMiB: 96, MaxVCPUs: 8, MaxMemoryMiB: 4096}
	for _, tc := range []struct {
		name         string
		limits       Limits
		vcpus, memMB int
	}{
		{"no limits", Limits{}, 1, 512},
		{"half a cpu", Limits{CPUQuota: 50000, CPUPeriod: 100000}, 1, 512},
		{"two and a bit", Limits{CPUQuota: 200001, CPUPeriod: 100000}, 3, 512},
		{"no quota", Limits{CPUQuota: -1, CPUPeriod: 100000}, 1, 512},
		{"above the maximum", Limits{CPUQuota: 9900000, CPUPeriod: 100000, Memory: 1 << 40}, 8, 4096},
		{"memory", Limits{Memory: 1 << 30}, 1, 1024 + 96},
		{"an odd byte", Limits{Memory: 1<<30 + 1}, 1, 1025 + 96},
		{"little memory", Limits{Memory: 1 << 20}, 1, leastMemoryMiB},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Size(base, tc.limits)
			if got.VCPUs != tc.vcpus || got.MemoryMiB != tc.memMB {
				t.Errorf("got %d vCPUs, %d MiB, want %d, %d", got.VCPUs, got.MemoryMiB, tc.vcpus, tc.memMB)
			}
		})
	}
}

func TestLimitsOf(t *testing.T) {
	own := Limits{Memory: 7}
	pod := map[string]string{annotationCPUQuota: "150000", annotationCPUPeriod: "100000", annotationMemory: "1048576"}
	for _, tc := range []struct {
		name        string
		annotations map[string]string
		want        Limits
	}{
		{"a container of its own", nil, own},
		{"a pod", pod, Limits{CPUQuota: 150000, CPUPeriod: 100000, Memory: 1 << 20}},
		{"a pod without limits", map[string]string{annotationMemory: "0"}, Limits{}},
	} {
		if diff := cmp.Diff(tc.want, LimitsOf(tc.annotations, own)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}
