//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/containerd/shimtest"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// BenchmarkStart compares `ctr run … true` with a bare boot of the same kernel
// in the same machine to an init that powers off, one after the other, and
// splits the run into its phases.
func BenchmarkStart(b *testing.B) {
	shared.Watch(b)
	initrd := bareInitrd(b)
	var bare, whole []float64
	phases := map[string][]float64{}
	for i := range b.N {
		bare = append(bare, millis(bareBoot(b, initrd)))
		id := fmt.Sprintf("bench-start-%d", i)
		begin := time.Now()
		shared.CtrOK(b, "run", "--rm", harness.ImageName, id, "/bin/true")
		whole = append(whole, millis(time.Since(begin)))
		for name, took := range bootPhases(b, id) {
			phases[name] = append(phases[name], took)
		}
	}
	for name, took := range phases {
		b.ReportMetric(median(took), name+"-ms")
	}
	b.ReportMetric(median(bare), "bare-ms")
	b.ReportMetric(median(whole), "ctr-run-ms")
	b.ReportMetric(median(whole)/median(bare), "run/bare")
	b.ReportMetric(0, "ns/op")
}

// bareInitrd makes the smallest initial RAM disk: busybox, and a script that
// powers off.
func bareInitrd(b *testing.B) string {
	b.Helper()
	paths, err := harness.Find()
	if err != nil {
		b.Fatal(err)
	}
	dir, out := b.TempDir(), filepath.Join(b.TempDir(), "initrd")
	busybox, err := os.ReadFile(paths.Busybox)
	if err != nil {
		b.Fatal(err)
	}
	for name, data := range map[string][]byte{"busybox": busybox, "init": []byte("#!/busybox sh\n/busybox poweroff -f\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	script := fmt.Sprintf("cd %q && printf 'busybox\\ninit\\n' | %q cpio -o -H newc > %q", dir, paths.Busybox, out)
	if msg, err := exec.CommandContext(b.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
		b.Fatalf("make bare image: %v\n%s", err, msg)
	}
	return out
}

// bareBoot runs QEMU as the shim does, without devices, until it ends.
func bareBoot(b *testing.B, initrd string) time.Duration {
	b.Helper()
	paths, err := harness.Find()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), paths.QEMU, "-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none", "-vga", "none", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=128",
		"-cpu", "max,-erms,-fsrm", "-m", "512M", "-kernel", paths.Kernel, "-initrd", initrd,
		"-append", "quiet panic=-1 cryptomgr.notests rcupdate.rcu_expedited=1 random.trust_cpu=on no_timer_check")
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("bare boot: %v\n%s", err, out)
	}
	return time.Since(begin)
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
			phases[m[1]] = millis(took)
		}
	}
	return phases
}

// BenchmarkExecTrue runs `true` in a running container.
func BenchmarkExecTrue(b *testing.B) {
	shared.Watch(b)
	task := shared.Running(b, "bench-exec", harness.Streams{}, []string{"sleep", "1000"})
	var took []float64
	for i := range max(b.N, 50) {
		begin := time.Now()
		if _, status := shared.Output(b, task, fmt.Sprintf("e%d", i), "/bin/true"); status != 0 {
			b.Fatalf("status %d", status)
		}
		took = append(took, millis(time.Since(begin)))
	}
	shared.KillTask(b, task)
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "p50-ms")
	b.ReportMetric(took[len(took)*95/100], "p95-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStdout moves the output of one process to a reader that discards it.
func BenchmarkStdout(b *testing.B) {
	shared.Watch(b)
	task := shared.Running(b, "bench-stdout", harness.Streams{}, []string{"sleep", "1000"})
	const chunks, size = 4096, 64 << 10
	var rates []float64
	for i := range b.N {
		begin := time.Now()
		p := shared.Exec(b, task, fmt.Sprintf("dd%d", i), harness.Streams{Stdout: io.Discard, Stderr: io.Discard},
			"dd", "if=/dev/zero", "bs=64k", "count="+strconv.Itoa(chunks))
		if status := shared.Finish(b, p); status != 0 {
			b.Fatalf("status %d", status)
		}
		rates = append(rates, chunks*size/time.Since(begin).Seconds()/(1<<20))
	}
	shared.KillTask(b, task)
	b.ReportMetric(median(rates), "MiB/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMemory measures an idle sandbox with one container.
func BenchmarkMemory(b *testing.B) {
	shared.Watch(b)
	const id = "bench-memory"
	task := shared.Running(b, id, harness.Streams{}, []string{"sleep", "1000"})
	for role, name := range map[harness.Role]string{harness.Shim: "shim", harness.QEMU: "qemu", harness.VirtioFSD: "virtiofsd"} {
		total := 0.0
		for _, p := range shared.Find(role, id) {
			total += pss(b, p.PID)
		}
		b.ReportMetric(total, name+"-PSS-MiB")
	}
	info := guestInfo(b, id)
	b.ReportMetric(float64(info.AgentRSS)/(1<<20), "agent-RSS-MiB")
	b.ReportMetric(float64(info.MemTotal-info.MemAvailable)/(1<<20), "guest-used-MiB")
	shared.KillTask(b, task)
	b.ReportMetric(0, "ns/op")
}

// guestInfo asks the guest through the sandbox's proxy socket.
func guestInfo(b *testing.B, id string) hyperstart.GuestInfoReply {
	b.Helper()
	sockets, err := filepath.Glob(filepath.Join(shared.StateDir(), "*", id, "vm", "proxy.sock"))
	if err != nil || len(sockets) != 1 {
		b.Fatalf("proxy sockets: %v, %v", sockets, err)
	}
	client := proxy.NewClient(id, func() (net.Conn, error) { return net.Dial("unix", sockets[0]) })
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	answer, err := client.Hyper(ctx, "guestinfo", "", nil)
	if err != nil {
		b.Fatal(err)
	}
	var info hyperstart.GuestInfoReply
	if err := json.Unmarshal(answer, &info); err != nil {
		b.Fatal(err)
	}
	return info
}

// pss is the proportional set size of a process in MiB.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatalf("process %d has no Pss", pid)
	return 0
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

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
