//go:build e2e

package cri_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// from makes the VMs of a benchmark boot, or go on from a template, or the next one be a spare one.
func from(b *testing.B, source string) {
	b.Helper()
	shared.Configure(b, func(s *harness.Settings) { s.NoTemplates, s.Spare = source == "boot", 0 })
	if source == "spare" {
		shared.Configure(b, func(s *harness.Settings) { s.NoTemplates, s.Spare = false, 1 })
		shared.MakeSpare(b)
	}
}

// BenchmarkPod runs a pod with two containers, in a VM that boots, in one from a template and in a spare one: from
// RunPodSandbox to the first one running, and from CreateContainer to the second one running. A
// bare boot of the same kernel comes in turns.
func BenchmarkPod(b *testing.B) {
	shared.Watch(b)
	b.Cleanup(func() { shared.EndSpares(b) })
	initrd := harness.BareInitrd(b)
	var bare []float64
	took := map[string][]float64{}
	for i := range b.N {
		bare = append(bare, harness.Millis(harness.BareBoot(b, initrd)))
		for _, source := range []string{"boot", "template", "spare"} {
			from(b, source)
			note := func(what string, begin time.Time) {
				took[source+"-"+what] = append(took[source+"-"+what], harness.Millis(time.Since(begin)))
			}
			begin := time.Now()
			pod := shared.RunPod(b, fmt.Sprintf("bench-pod-%s-%d", source, i), nil)
			note("sandbox", begin)
			pod.Start(b, "first", harness.Sleep)
			note("first", begin)
			begin = time.Now()
			pod.Start(b, "second", harness.Sleep)
			note("second", begin)
			pod.Remove(b)
		}
	}
	b.ReportMetric(harness.Median(bare), "bare-ms")
	for name, all := range took {
		b.ReportMetric(harness.Median(all), name+"-ms")
	}
	for _, source := range []string{"boot", "template", "spare"} {
		b.ReportMetric(harness.Median(took[source+"-first"])/harness.Median(bare), source+"-first/bare")
		b.ReportMetric(harness.Median(took[source+"-second"])/harness.Median(took[source+"-first"]), source+"-second/first")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdlePods measures what an idle pod with one container takes of the
// host's memory, among 1, 5 and 10 of them.
func BenchmarkIdlePods(b *testing.B) {
	for _, source := range []string{"boot", "template"} {
		for _, n := range []int{1, 5, 10} {
			b.Run(fmt.Sprintf("%s/%d", source, n), func(b *testing.B) {
				shared.Watch(b)
				from(b, source)
				idlePods(b, source, n)
			})
		}
	}
}

func idlePods(b *testing.B, source string, n int) {
	b.Helper()
	var pods []*harness.Pod
	for i := range n {
		pod := shared.RunPod(b, fmt.Sprintf("idle-%s-%d-%d", source, n, i), nil)
		pod.Start(b, "main", "exec sleep 1000000")
		pods = append(pods, pod)
	}
	total, sum := map[harness.Role]float64{}, 0.0
	for _, shim := range shared.FindAll(harness.Shim) {
		shim.AwaitTrim(b)
	}
	for _, p := range shared.Processes() { // there are no others
		for _, role := range []harness.Role{harness.Shim, harness.QEMU, harness.VirtioFSD} {
			if strings.HasPrefix(p.Name, string(role)) {
				mib := p.PSS(b)
				total[role] += mib
				sum += mib
			}
		}
	}
	for role, mib := range total {
		b.ReportMetric(mib/float64(n), strings.Trim(string(role), "-")+"-MiB/pod")
	}
	b.ReportMetric(sum/float64(n), "all-MiB/pod")
	for _, pod := range pods {
		pod.Remove(b)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPodsAtOnce starts ten pods one after the other, and ten side by side: until the
// container of the last one runs.
func BenchmarkPodsAtOnce(b *testing.B) {
	const pods = 10
	for _, source := range []string{"boot", "template"} {
		b.Run(source, func(b *testing.B) {
			shared.Watch(b)
			from(b, source)
			var turns, once []float64
			for i := range b.N {
				turns = append(turns, startPods(b, fmt.Sprintf("turn-%s-%d", source, i), pods, func(start func()) { start() }))
				var running sync.WaitGroup
				once = append(once, startPods(b, fmt.Sprintf("once-%s-%d", source, i), pods, running.Go, running.Wait))
			}
			b.ReportMetric(harness.Median(turns), "one-after-the-other-ms")
			b.ReportMetric(harness.Median(once), "at-once-ms")
			b.ReportMetric(harness.Median(once)/harness.Median(turns), "at-once/one-after-the-other")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// startPods starts pods in the way of run, and returns how long it took until wait, if there is
// one, has returned. The pods are removed.
func startPods(b *testing.B, name string, n int, run func(start func()), wait ...func()) float64 {
	b.Helper()
	pods := make([]*harness.Pod, n)
	begin := time.Now()
	for i := range pods {
		run(func() {
			pods[i] = shared.RunPod(b, fmt.Sprintf("%s-%d", name, i), nil)
			pods[i].Start(b, "main", harness.Sleep)
		})
	}
	for _, f := range wait {
		f()
	}
	took := harness.Millis(time.Since(begin))
	for _, pod := range pods {
		pod.Remove(b)
	}
	return took
}
