package agent_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
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

// TestWarmUp: a container that nobody has asked for leaves nothing, and can be run again.
func TestWarmUp(t *testing.T) {
	v := boot(t)
	v.call(hyperstart.WarmUp, nil)
	v.call(hyperstart.WarmUp, nil)
	v.call(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "pod"})
	look := spec("sh", "-c", "ls -d /agent/oci /agent/*warm* /agent/oci/*warm* /groups/*warm*; grep warm /proc/1/mountinfo; true")
	for from, to := range map[string]string{layout.RunDir: "/agent", layout.CgroupBase: "/groups"} {
		look.Mounts = append(look.Mounts, specs.Mount{Destination: to, Type: "bind", Source: from, Options: []string{"rbind"}})
	}
	p := v.run("look", look)
	if p.wait(); p.stdout.String() != "/agent/oci\n" {
		t.Errorf("there is:\n%s", p.stdout.String())
	}
}
