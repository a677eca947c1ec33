//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	guestclient "github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/shimtest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// starts are the VMs that BenchmarkStart has: of the usual size, and larger, one of which gets
// the rest by hot-plug.
var starts = []struct {
	name, source string
	args         []string
}{
	{"boot", "boot", nil},
	{"template", "template", nil},
	{"spare", "spare", nil},
	{"larger-boot", "boot", larger},
	{"larger-template", "template", larger},
}

var larger = []string{"--memory-limit", fmt.Sprint(2 << 30), "--cpu-quota", "200000", "--cpu-period", "100000"}

// BenchmarkStart compares `ctr run … true`, in a VM that boots, in one from a template and in a spare one, with
// a bare boot of the same kernel in the same machine to an init that powers off, and with runc,
// one after the other, and splits the runs into their phases.
func BenchmarkStart(b *testing.B) {
	shared.Watch(b)
	b.Cleanup(func() { shared.EndSpares(b) })
	initrd := harness.BareInitrd(b)
	if out, err := ccv2(b, "template", "build", "-cpus", "2"); err != nil { // emulated, those have one of their own
		b.Fatalf("%v: %s", err, out)
	}
	var bare, runc []float64
	whole, phases := map[string][]float64{}, map[string][]float64{}
	for i := range b.N {
		bare = append(bare, harness.Millis(harness.BareBoot(b, initrd)))
		begin := time.Now()
		shared.CtrOK(b, "run", "--rm", "--runtime", harness.Runc, harness.ImageName, fmt.Sprintf("bench-runc-%d", i), "/bin/true")
		runc = append(runc, harness.Millis(time.Since(begin)))
		for _, s := range starts {
			shared.Configure(b, func(c *harness.Settings) { c.NoTemplates, c.Spare = s.source == "boot", 0 })
			if s.source == "spare" {
				shared.Configure(b, func(c *harness.Settings) { c.NoTemplates, c.Spare = false, 1 })
				shared.MakeSpare(b)
			}
			id := fmt.Sprintf("bench-start-%s-%d", s.name, i)
			begin := time.Now()
			shared.CtrOK(b, slices.Concat([]string{"run", "--rm"}, s.args, []string{harness.ImageName, id, "/bin/true"})...)
			whole[s.name] = append(whole[s.name], harness.Millis(time.Since(begin)))
			if got := sources(shared.Log())[id]; got != s.source {
				b.Fatalf("the VM is from %q, want %q", got, s.source)
			}
			for name, took := range bootPhases(b, id) {
				phases[s.name+"-"+name] = append(phases[s.name+"-"+name], took)
			}
		}
	}
	for name, took := range phases {
		b.ReportMetric(harness.Median(took), name+"-ms")
	}
	b.ReportMetric(harness.Median(bare), "bare-ms")
	b.ReportMetric(harness.Median(runc), "runc-run-ms")
	for name, took := range whole {
		b.ReportMetric(harness.Median(took), name+"-run-ms")
		b.ReportMetric(harness.Median(took)/harness.Median(bare), name+"-run/bare")
	}
	b.ReportMetric(0, "ns/op")
	if path := os.Getenv("CCV2_CHART"); path != "" {
		drawStart(b, path, whole, phases, harness.Median(bare))
	}
}

// drawStart draws the phases of the starts.
func drawStart(b *testing.B, path string, whole, phases map[string][]float64, bare float64) {
	b.Helper()
	var bars []harness.Bar
	for _, s := range starts {
		bar, rest := harness.Bar{Name: s.name}, harness.Median(whole[s.name])
		for _, phase := range []struct{ key, name string }{
			{"prepare", "files, server, cgroup"},
			{"monitor", "start of QEMU"},
			{"ready", "guest answers"},
			{"plug", "plug the share"},
			{"pod", "start the pod"},
		} {
			took := harness.Median(phases[s.name+"-"+phase.key])
			bar.Parts = append(bar.Parts, harness.Part{Name: phase.name, Millis: took})
			rest -= took
		}
		bar.Parts = append(bar.Parts, harness.Part{Name: "container, and the end", Millis: rest})
		bars = append(bars, bar)
	}
	accel, _, err := qemu.Resolve(hypervisor.AccelAuto, qemu.LocalHost())
	if err != nil {
		b.Fatal(err)
	}
	harness.DrawChart(b, path, "ctr run --rm … true ("+string(accel)+"; larger: 2 vCPUs, 2 GiB)", bars, harness.Mark{Name: "bare boot", Millis: bare})
}

var phaseField = regexp.MustCompile(`\b(prepare|monitor|ready|network|plug|pod)=("?)([0-9.a-zµ]+)\b`)

// bootPhases reads the phases that the shim logged.
func bootPhases(b *testing.B, id string) map[string]float64 {
	b.Helper()
	phases := map[string]float64{}
	for line := range strings.Lines(shared.Log()) {
		if !strings.Contains(line, "sandbox ready") || !strings.Contains(line, "sandbox="+id+" ") {
			continue
		}
		for _, m := range phaseField.FindAllStringSubmatch(line, -1) {
			took, err := time.ParseDuration(m[3])
			if err != nil {
				b.Fatal(err)
			}
			phases[m[1]] = harness.Millis(took)
		}
	}
	return phases
}

// BenchmarkExecTrue runs `true` in a running container, in a VM and with runc, in turns.
func BenchmarkExecTrue(b *testing.B) {
	shared.Watch(b)
	runtimes := map[string]string{"runc": harness.Runc, "ccv2": harness.Runtime}
	tasks, took := map[string]client.Task{}, map[string][]float64{}
	for name, runtime := range runtimes {
		tasks[name] = shared.RunningOn(b, runtime, "bench-exec-"+name, harness.Streams{}, []string{"sleep", "1000"})
	}
	for i := range max(b.N, 50) {
		for name, task := range tasks {
			begin := time.Now()
			if _, status := shared.Output(b, task, fmt.Sprintf("e%d", i), "/bin/true"); status != 0 {
				b.Fatalf("status %d", status)
			}
			took[name] = append(took[name], harness.Millis(time.Since(begin)))
		}
	}
	for name, task := range tasks {
		shared.KillTask(b, task)
		slices.Sort(took[name])
		b.ReportMetric(took[name][len(took[name])/2], name+"-p50-ms")
		b.ReportMetric(took[name][len(took[name])*95/100], name+"-p95-ms")
	}
	b.ReportMetric(harness.Median(took["ccv2"])/harness.Median(took["runc"]), "÷runc")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMemory measures an idle sandbox with one container, whose VM has booted, and is from
// a template.
func BenchmarkMemory(b *testing.B) {
	shared.Watch(b)
	for _, source := range []string{"boot", "template"} {
		shared.Configure(b, func(s *harness.Settings) { s.NoTemplates = source == "boot" })
		id := "bench-memory-" + source
		task := shared.Running(b, id, harness.Streams{}, []string{"sleep", "1000"})
		shared.AwaitProcess(b, harness.Shim, id).AwaitTrim(b)
		sum := 0.0
		for role, name := range map[harness.Role]string{harness.Shim: "shim", harness.QEMU: "qemu", harness.VirtioFSD: "virtiofsd"} {
			total := 0.0
			for _, p := range shared.Find(role, id) {
				total += p.PSS(b)
			}
			sum += total
			b.ReportMetric(total, source+"-"+name+"-PSS-MiB")
		}
		b.ReportMetric(sum, source+"-PSS-MiB")
		info := guestInfo(b, id)
		b.ReportMetric(float64(info.AgentRSS)/(1<<20), source+"-agent-RSS-MiB")
		b.ReportMetric(float64(info.MemTotal-info.MemAvailable)/(1<<20), source+"-guest-used-MiB")
		shared.KillTask(b, task)
	}
	b.ReportMetric(0, "ns/op")
}

// guestInfo asks the guest through the sandbox's proxy socket.
func guestInfo(b *testing.B, id string) hyperstart.GuestInfoReply {
	b.Helper()
	sockets, err := filepath.Glob(filepath.Join(shared.StateDir(), "*", id, "vm", "proxy.sock"))
	if err != nil || len(sockets) != 1 {
		b.Fatalf("proxy sockets: %v, %v", sockets, err)
	}
	frames := guestclient.NewFrames(id, func() (net.Conn, error) { return net.Dial("unix", sockets[0]) })
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	answer, err := frames.Hyper(ctx, "guestinfo", "", nil)
	if err != nil {
		b.Fatal(err)
	}
	var info hyperstart.GuestInfoReply
	if err := json.Unmarshal(answer, &info); err != nil {
		b.Fatal(err)
	}
	return info
}

// BenchmarkShim runs containerd's own benchmarks for shims, on this shim and
// on runc's.
func BenchmarkShim(b *testing.B) {
	h := shimHost(b)
	for name, binary := range map[string]string{"ccv2": harness.ShimName, "runc": harness.RuncShim} {
		b.Run(name, func(b *testing.B) {
			config := shimtest.Config{ShimBinary: filepath.Join(h.Bin, binary)}
			shimtest.NewRunSuite(config).Bench(b)
			shimtest.NewExecSuite(config).Bench(b)
		})
	}
}

// BenchmarkNetwork fetches a file from a pod, and in turns from a namespace
// without a guest: in a pod's own namespace all that comes is the guest's.
func BenchmarkNetwork(b *testing.B) {
	shared.Watch(b)
	far, pod := newPodNetwork(b)
	plainFar, plainPod := newPodNetwork(b)
	const size = 60 << 20 // fits the guest's /dev/shm
	g := runGuest(b, shared, "bench-net", pod)
	g.must(fmt.Sprintf("head -c %d /dev/zero > /dev/shm/file && httpd -p 80 -h /dev/shm", size))
	server := &http.Server{
		ReadHeaderTimeout: harness.Patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, size)) // what is missing shows
		}),
	}
	b.Cleanup(func() { _ = server.Close() })
	plainPod.inside(func() error {
		l, err := net.Listen("tcp", "192.0.2.2:80")
		if err == nil {
			go func() { _ = server.Serve(l) }()
		}
		return err
	})
	var guest, veth []float64
	for range b.N {
		veth = append(veth, fetch(b, plainFar, size))
		guest = append(guest, fetch(b, far, size))
	}
	b.ReportMetric(harness.Median(veth), "veth-MiB/s")
	b.ReportMetric(harness.Median(guest), "pod-MiB/s")
	b.ReportMetric(harness.Median(guest)/harness.Median(veth), "pod/veth")
	b.ReportMetric(0, "ns/op")
}

// fetch gets the file from the pod's address and returns its rate in MiB/s.
func fetch(b *testing.B, from netns, size int64) float64 {
	b.Helper()
	var conn net.Conn
	from.inside(func() (err error) {
		conn, err = net.Dial("tcp", "192.0.2.2:80")
		return err
	})
	defer func() { _ = conn.Close() }()
	begin := time.Now()
	if _, err := io.WriteString(conn, "GET /file HTTP/1.0\r\n\r\n"); err != nil {
		b.Fatal(err)
	}
	n, err := io.Copy(io.Discard, conn)
	if n < size || err != nil {
		b.Fatalf("%d bytes of %d, error %v", n, size, err)
	}
	return float64(n) / time.Since(begin).Seconds() / (1 << 20)
}

// BenchmarkFiles writes and reads a file in the root file system and, in turns,
// in a tmpfs of the same guest. What is read is not in the guest's cache.
func BenchmarkFiles(b *testing.B) {
	shared.Watch(b)
	task := shared.Running(b, "bench-files", harness.Streams{}, []string{"sleep", "1000"}, oci.WithMounts([]specs.Mount{
		{Type: "tmpfs", Source: "tmpfs", Destination: "/mem", Options: []string{"size=128m"}},
	}), oci.WithPrivileged)
	const mib = 64
	count := 0
	rate := func(script string) float64 {
		count++
		begin := time.Now()
		if out, status := shared.Output(b, task, fmt.Sprintf("f%d", count), "sh", "-c", script); status != 0 {
			b.Fatalf("%s: status %d\n%s", script, status, out)
		}
		return mib / time.Since(begin).Seconds()
	}
	rates := map[string][]float64{}
	for range b.N {
		for where, dir := range map[string]string{"rootfs": "/data", "tmpfs": "/mem"} {
			rate("mkdir -p " + dir)
			write := rate(fmt.Sprintf("dd if=/dev/zero of=%s/f bs=1M count=%d conv=fsync 2>/dev/null", dir, mib))
			if where == "rootfs" {
				rate("echo 3 > /proc/sys/vm/drop_caches")
			}
			read := rate(fmt.Sprintf("dd if=%s/f of=/dev/null bs=1M 2>/dev/null && rm %s/f", dir, dir))
			rates[where+"-write"] = append(rates[where+"-write"], write)
			rates[where+"-read"] = append(rates[where+"-read"], read)
		}
	}
	shared.KillTask(b, task)
	for name, values := range rates {
		b.ReportMetric(harness.Median(values), name+"-MiB/s")
	}
	for _, way := range []string{"write", "read"} {
		b.ReportMetric(harness.Median(rates["rootfs-"+way])/harness.Median(rates["tmpfs-"+way]), way+"/tmpfs")
	}
	b.ReportMetric(0, "ns/op")
}
