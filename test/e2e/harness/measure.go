//go:build e2e

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
)

// Millis is a duration as a benchmark reports it.
func Millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Median returns the middle of values, 0 for none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

// BareInitrd makes the smallest initial RAM disk, for BareBoot: busybox, and a
// script that powers off.
func BareInitrd(tb testing.TB) string {
	tb.Helper()
	paths, err := Find()
	if err != nil {
		tb.Fatal(err)
	}
	dir, out := tb.TempDir(), filepath.Join(tb.TempDir(), "initrd")
	busybox, err := os.ReadFile(paths.Busybox)
	if err != nil {
		tb.Fatal(err)
	}
	for name, data := range map[string][]byte{"busybox": busybox, "init": []byte("#!/busybox sh\n/busybox poweroff -f\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	script := fmt.Sprintf("cd %q && printf 'busybox\\ninit\\n' | %q cpio -o -H newc > %q", dir, paths.Busybox, out)
	if msg, err := exec.CommandContext(tb.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
		tb.Fatalf("make bare image: %v\n%s", err, msg)
	}
	return out
}

// BareBoot runs QEMU as the shim does, without devices, until it ends, and
// returns how long that took.
func BareBoot(tb testing.TB, initrd string) time.Duration {
	tb.Helper()
	paths, err := Find()
	if err != nil {
		tb.Fatal(err)
	}
	accel, cpu := "tcg,thread=multi,tb-size=128", "max,-erms,-fsrm"
	got, _, err := qemu.Resolve(hypervisor.AccelAuto, qemu.LocalHost())
	if err != nil {
		tb.Fatal(err)
	}
	if got == hypervisor.AccelKVM {
		accel, cpu = "kvm", "host"
	}
	cmd := exec.CommandContext(tb.Context(), paths.QEMU, "-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none", "-vga", "none", "-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", "512M", "-kernel", paths.Kernel, "-initrd", initrd,
		"-append", "quiet panic=-1 cryptomgr.notests rcupdate.rcu_expedited=1 random.trust_cpu=on no_timer_check")
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("bare boot: %v\n%s", err, out)
	}
	return time.Since(begin)
}

// PSS is the proportional set size of the process in MiB.
func (p Process) PSS(tb testing.TB) float64 {
	tb.Helper()
	return p.mib(tb, "smaps_rollup", "Pss:")
}

// mib reads a field of a file in the process's directory, which is in KiB there.
func (p Process) mib(tb testing.TB, file, field string) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID, file))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kib / 1024
		}
	}
	tb.Fatalf("%s has no %s", p, field)
	return 0
}

// AwaitTrim waits until a shim has given back what an idle one does not need, its
// program above all.
func (p Process) AwaitTrim(tb testing.TB) {
	tb.Helper()
	program, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.PID))
	if err != nil {
		tb.Fatal(err)
	}
	size := float64(program.Size()) / (1 << 20)
	Until(tb, "memory that "+p.String()+" gives back", func() bool { return p.mib(tb, "status", "RssFile:") < size/3 })
}
