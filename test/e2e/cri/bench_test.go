//go:build e2e

package cri_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// BenchmarkPod runs a pod with two containers: from RunPodSandbox to the first
// one running, and from CreateContainer to the second one running. A bare boot
// of the same kernel comes in turns.
func BenchmarkPod(b *testing.B) {
	shared.Watch(b)
	initrd := harness.BareInitrd(b)
	var bare, sandbox, first, second []float64
	for i := range b.N {
		bare = append(bare, harness.Millis(harness.BareBoot(b, initrd)))
		begin := time.Now()
		pod := shared.RunPod(b, fmt.Sprintf("bench-pod-%d", i), nil)
		sandbox = append(sandbox, harness.Millis(time.Since(begin)))
		pod.Start(b, "first", harness.Sleep)
		first = append(first, harness.Millis(time.Since(begin)))
		begin = time.Now()
		pod.Start(b, "second", harness.Sleep)
		second = append(second, harness.Millis(time.Since(begin)))
		pod.Remove(b)
	}
	b.ReportMetric(harness.Median(bare), "bare-ms")
	b.ReportMetric(harness.Median(sandbox), "sandbox-ms")
	b.ReportMetric(harness.Median(first), "first-ms")
	b.ReportMetric(harness.Median(second), "second-ms")
	b.ReportMetric(harness.Median(first)/harness.Median(bare), "first/bare")
	b.ReportMetric(harness.Median(second)/harness.Median(first), "second/first")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdlePods measures what an idle pod with one container takes of the
// host's memory, among 1, 5 and 10 of them.
func BenchmarkIdlePods(b *testing.B) {
	for _, n := range []int{1, 5, 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			shared.Watch(b)
			var pods []*harness.Pod
			for i := range n {
				pod := shared.RunPod(b, fmt.Sprintf("idle-%d-%d", n, i), nil)
				pod.Start(b, "main", "exec sleep 1000000")
				pods = append(pods, pod)
			}
			total := map[harness.Role]float64{}
			for _, p := range shared.Processes() { // there are no others
				for _, role := range []harness.Role{harness.Shim, harness.QEMU, harness.VirtioFSD} {
					if strings.HasPrefix(p.Name, string(role)) {
						total[role] += p.PSS(b)
					}
				}
			}
			for role, mib := range total {
				b.ReportMetric(mib/float64(n), strings.Trim(string(role), "-")+"-MiB/pod")
			}
			for _, pod := range pods {
				pod.Remove(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
