//go:build e2e

package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// BenchmarkStdout moves the output of one process to a reader that discards it, in turns with
// the same through a port of a guest that has nothing else, and through a pipe of one.
func BenchmarkStdout(b *testing.B) {
	shared.Watch(b)
	task := shared.Running(b, "bench-stdout", harness.Streams{}, []string{"sleep", "1000"})
	const chunks, size = 4096, 64 << 10
	var rates, ports []float64
	used := map[harness.Role][]float64{}
	for i := range b.N {
		ports = append(ports, harness.PortRate(b, chunks, size))
		before := usedBy(b, "bench-stdout")
		begin := time.Now()
		p := shared.Exec(b, task, fmt.Sprintf("dd%d", i), harness.Streams{Stdout: io.Discard, Stderr: io.Discard},
			"dd", "if=/dev/zero", "bs=64k", "count="+strconv.Itoa(chunks))
		if status := shared.Finish(b, p); status != 0 {
			b.Fatalf("status %d", status)
		}
		rates = append(rates, chunks*size/time.Since(begin).Seconds()/(1<<20))
		for role, after := range usedBy(b, "bench-stdout") {
			used[role] = append(used[role], harness.Millis(after-before[role]))
		}
	}
	shared.KillTask(b, task)
	b.ReportMetric(harness.Median(rates), "MiB/s")
	b.ReportMetric(harness.Median(ports), "port-MiB/s")
	b.ReportMetric(harness.Median(rates)/harness.Median(ports), "÷port")
	b.ReportMetric(harness.Median(used[harness.Shim]), "shim-cpu-ms")
	b.ReportMetric(harness.Median(used[harness.QEMU]), "qemu-cpu-ms")
	b.ReportMetric(0, "ns/op")
}

// usedBy is the processor time of a sandbox's shim and QEMU so far.
func usedBy(b *testing.B, id string) map[harness.Role]time.Duration {
	b.Helper()
	used := map[harness.Role]time.Duration{}
	for _, role := range []harness.Role{harness.Shim, harness.QEMU} {
		used[role] = shared.AwaitProcess(b, role, id).ProcessorTime(b)
	}
	return used
}

// BenchmarkFirstByte runs a second container in a VM that runs, until it has written the first
// byte of its output.
func BenchmarkFirstByte(b *testing.B) {
	shared.Watch(b)
	task := shared.Running(b, "bench-first", harness.Streams{}, []string{"sleep", "1000"}, inSandbox("bench-first", "sandbox"))
	var took []float64
	runs, before := max(b.N, 20), usedBy(b, "bench-first")
	for i := range runs {
		id := fmt.Sprintf("bench-first-%d", i)
		container := shared.Container(b, id, []string{"echo", "here"}, inSandbox("bench-first", "container"))
		first := make(firstByte, 1)
		begin := time.Now()
		second := shared.Task(b, container, harness.Streams{Stdout: first, Stderr: io.Discard})
		if err := second.Start(shared.Context()); err != nil {
			b.Fatal(err)
		}
		took = append(took, harness.Millis((<-first).Sub(begin)))
		shared.Finish(b, second)
	}
	after := usedBy(b, "bench-first")
	shared.KillTask(b, task)
	b.ReportMetric(harness.Median(took), "ms")
	b.ReportMetric(harness.Millis(after[harness.QEMU]-before[harness.QEMU])/float64(runs), "qemu-cpu-ms/container")
	b.ReportMetric(0, "ns/op")
}

// inSandbox says what a container is in a pod.
func inSandbox(id, kind string) oci.SpecOpts {
	return oci.WithAnnotations(map[string]string{"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": id})
}

// firstByte gets the time of the first write.
type firstByte chan time.Time

func (f firstByte) Write(p []byte) (int, error) {
	select {
	case f <- time.Now():
	default:
	}
	return len(p), nil
}

// BenchmarkEcho sends 4 MiB to the stdin of a process and reads them from its stdout, in a VM
// and with runc, in turns.
func BenchmarkEcho(b *testing.B) {
	shared.Watch(b)
	runtimes := map[string]string{"runc": harness.Runc, "ccv2": harness.Runtime}
	tasks, rates := map[string]client.Task{}, map[string][]float64{}
	for name, runtime := range runtimes {
		tasks[name] = shared.RunningOn(b, runtime, "bench-echo-"+name, harness.Streams{}, []string{"sleep", "1000"})
	}
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 4<<20/16)
	for i := range max(b.N, 7) {
		for name, task := range tasks {
			var got harness.Buffer
			in, out := io.Pipe()
			p := shared.Exec(b, task, fmt.Sprintf("cat%d", i), harness.Streams{Stdin: in, Stdout: &got, Stderr: io.Discard}, "cat")
			begin := time.Now()
			if _, err := out.Write(sent); err != nil {
				b.Fatal(err)
			}
			out.Close()
			if status := shared.Finish(b, p); status != 0 || got.String() != string(sent) {
				b.Fatalf("status %d, %d bytes of %d", status, len(got.String()), len(sent))
			}
			rates[name] = append(rates[name], float64(len(sent))/time.Since(begin).Seconds()/(1<<20))
		}
	}
	for name, task := range tasks {
		shared.KillTask(b, task)
		b.ReportMetric(harness.Median(rates[name]), name+"-MiB/s")
	}
	b.ReportMetric(harness.Median(rates["ccv2"])/harness.Median(rates["runc"]), "÷runc")
	b.ReportMetric(0, "ns/op")
}
