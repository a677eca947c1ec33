package agent_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestQuiesce: what is free afterwards is zeros, and containers run as before.
func TestQuiesce(t *testing.T) {
	v := boot(t)
	v.call(hyperstart.Quiesce, nil)
	for _, tt := range []struct {
		bytes int
		says  string
	}{{31, "want 32 to 512"}, {513, "want 32 to 512"}} {
		if err := v.fail(hyperstart.Reseed, hyperstart.ReseedRequest{Entropy: make([]byte, tt.bytes)}); !strings.Contains(err.Message, tt.says) {
			t.Errorf("%d bytes: %v", tt.bytes, err)
		}
	}
	v.call(hyperstart.Reseed, hyperstart.ReseedRequest{Entropy: bytes.Repeat([]byte{7}, 64)})
	v.call(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "pod"})
	v.run("after", spec("true")).wait()
}

// TestQuiesceReserve: memory that the kernel keeps for devices, as it does in each VM with
// more than 2 GiB, is free and cannot be had.
func TestQuiesceReserve(t *testing.T) {
	v := boot(t, "-append", "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable random.trust_cpu=on sysctl.vm.lowmem_reserve_ratio=1")
	v.call(hyperstart.Quiesce, nil)
	v.call(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "pod"})
	p := v.run("after", spec("sh", "-c", "read ratio rest </proc/sys/vm/lowmem_reserve_ratio; echo $ratio"))
	if p.wait(); p.stdout.String() != "1\n" {
		t.Errorf("the kernel has the ratio %q afterwards, want 1", p.stdout.String())
	}
}
