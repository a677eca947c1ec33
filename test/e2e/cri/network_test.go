//go:build e2e

package cri_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// server sends back what comes.
const server = "while :; do nc -l -p 7000 -e /bin/cat; done"

// TestPodToPod moves data between two pods and counts it.
func TestPodToPod(t *testing.T) {
	shared.Watch(t)
	near, far := shared.RunPod(t, "near", nil), shared.RunPod(t, "far", nil)
	c, s := near.Start(t, "client", harness.Sleep), far.Start(t, "server", server)
	for _, family := range []string{"-4", "-6"} {
		address := addressOf(t, s, family)
		t.Run("tcp"+family, func(t *testing.T) {
			const size = 4_000_000 // more than all buffers on the way, twice
			out, code := c.Exec(t, "sh", "-c", fmt.Sprintf(
				"for i in 1 2 3 4 5 6 7 8 9; do nc -w 1 %[1]s 7000 </dev/null && break; sleep 1; done; "+
					"head -c %[2]d /dev/urandom > /tmp/data; md5sum < /tmp/data; nc %[1]s 7000 < /tmp/data | md5sum", address, size))
			sums := strings.Fields(out)
			if code != 0 || len(sums) != 4 || sums[0] != sums[2] {
				t.Errorf("status %d: sent and came back: %q", code, out)
			}
		})
		t.Run("udp"+family, func(t *testing.T) {
			// Nobody listens, which the other kernel says of each datagram.
			out, _ := c.Exec(t, "nslookup", "-type=a", "ccv2.test", address)
			if !strings.Contains(out, "refused") {
				t.Errorf("no answer to a datagram: %q", out)
			}
		})
		t.Run("icmp"+family, func(t *testing.T) {
			for _, size := range []string{"56", "1372", "5000"} { // the second fills IPv4's MTU of 1400
				c.WantContains(t, "1 packets received", "ping", "-c1", "-W5", "-s", size, address)
			}
		})
	}
	t.Run("statistics", func(t *testing.T) { countOnce(t, near) })
}

// addressOf is the global address of a family of the pod.
func addressOf(t *testing.T, c *harness.PodContainer, family string) string {
	t.Helper()
	out, _ := c.Exec(t, "ip", family, "-o", "addr", "show", "eth0", "scope", "global")
	for i, fields := 0, strings.Fields(out); i+1 < len(fields); i++ {
		if strings.HasPrefix(fields[i], "inet") {
			address, _, _ := strings.Cut(fields[i+1], "/")
			return address
		}
	}
	t.Fatalf("no address in %q", out)
	return ""
}

// countOnce knows what was moved: 4 MB each way and family.
func countOnce(t *testing.T, pod *harness.Pod) {
	t.Helper()
	got := pod.Stats(t).GetLinux().GetNetwork().GetDefaultInterface()
	if got.GetName() != "eth0" {
		t.Fatalf("the default interface is %q", got.GetName())
	}
	const moved, most = 8_000_000, 12_000_000 // with headers, but not twice
	for name, bytes := range map[string]uint64{"received": got.GetRxBytes().GetValue(), "sent": got.GetTxBytes().GetValue()} {
		if bytes < moved || bytes > most {
			t.Errorf("eth0 has %s %d bytes, want %d to %d", name, bytes, moved, most)
		}
	}
}

// TestHostNetwork is refused with a reason, and the host keeps its network.
func TestHostNetwork(t *testing.T) {
	shared.Watch(t)
	name := "hostnet"
	ctx := context.Background()
	r, err := shared.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{
		RuntimeHandler: "ccv2",
		Config: &runtimeapi.PodSandboxConfig{
			Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: name + "-uid"},
			LogDirectory: t.TempDir(),
			Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			}},
		},
	})
	if err == nil {
		_, _ = shared.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: r.GetPodSandboxId()})
	}
	if code := status.Code(err); code == codes.OK || !strings.Contains(fmt.Sprint(err), "host's network") {
		t.Errorf("got %v, want a refusal of the host's network", err)
	}
	pod := shared.RunPod(t, "after-hostnet", nil)
	pod.Start(t, "main", harness.Sleep).WantContains(t, "1 packets received", "ping", "-c1", "-W5", "10.99.0.1")
}
