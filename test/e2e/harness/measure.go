//go:build e2e

package harness

import (
	"fmt"
	"io"
	"net"
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
	return scriptInitrd(tb, "/busybox poweroff -f\n")
}

// scriptInitrd makes an initial RAM disk of busybox and a script for it.
func scriptInitrd(tb testing.TB, script string) string {
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
	for name, data := range map[string][]byte{"busybox": busybox, "init": []byte("#!/busybox sh\n" + script)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	pack := fmt.Sprintf("cd %q && printf 'busybox\\ninit\\n' | %q cpio -o -H newc > %q", dir, paths.Busybox, out)
	if msg, err := exec.CommandContext(tb.Context(), "sh", "-c", pack).CombinedOutput(); err != nil {
		tb.Fatalf("make bare image: %v\n%s", err, msg)
	}
	return out
}

// BareBoot runs QEMU as the shim does, without devices, until it ends, and
// returns how long that took.
func BareBoot(tb testing.TB, initrd string) time.Duration {
	tb.Helper()
	cmd := bareQEMU(tb, initrd)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("bare boot: %v\n%s", err, out)
	}
	return time.Since(begin)
}

// bareQEMU is the command of a VM without devices but for those of args.
func bareQEMU(tb testing.TB, initrd string, args ...string) *exec.Cmd {
	tb.Helper()
	paths, err := Find()
	if err != nil {
		tb.Fatal(err)
	}
	accel, cpu := "tcg,thread=single,tb-size=128", "max,-erms,-fsrm"
	got, _, err := qemu.Resolve(hypervisor.AccelAuto, qemu.LocalHost())
	if err != nil {
		tb.Fatal(err)
	}
	if got == hypervisor.AccelKVM {
		accel, cpu = "kvm", "host"
	}
	args = append([]string{
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none", "-vga", "none", "-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", "512M", "-kernel", paths.Kernel, "-initrd", initrd,
		"-append", "quiet panic=-1 cryptomgr.notests rcupdate.rcu_expedited=1 random.trust_cpu=on no_timer_check",
	}, args...)
	return exec.CommandContext(tb.Context(), paths.QEMU, args...)
}

// PortRate is how many MiB a second a guest that does nothing else writes to a port, in chunks of some bytes, with
// a kernel that has the port's driver built in.
func PortRate(tb testing.TB, chunks, size int) float64 {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "port")
	script := fmt.Sprintf(`/busybox mkdir -p /dev && /busybox mount -t devtmpfs dev /dev
for i in $(/busybox seq 10000); do [ -c /dev/vport0p1 ] && break; done
exec 3<>/dev/vport0p1
/busybox dd if=/dev/zero bs=%d count=%d >&3 2>/dev/null
/busybox head -c 1 <&3 >/dev/null
/busybox poweroff -f
`, size, chunks)
	cmd := bareQEMU(tb, scriptInitrd(tb, script), "-device", "virtio-serial-pci,max_ports=2",
		"-chardev", "socket,id=port,server=on,wait=on,path="+path, "-device", "virtserialport,nr=1,chardev=port,name=port")
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	var conn net.Conn
	Until(tb, "port of a bare guest", func() (ok bool) {
		var err error
		conn, err = (&net.Dialer{}).DialContext(tb.Context(), "unix", path)
		return err == nil
	})
	defer func() { _ = conn.Close() }()
	if _, err := io.ReadFull(conn, make([]byte, size)); err != nil {
		tb.Fatalf("port of a bare guest: %v", err)
	}
	begin, rest := time.Now(), int64(chunks-1)*int64(size)
	n, err := io.CopyN(io.Discard, conn, rest)
	took := time.Since(begin)
	if err != nil {
		tb.Fatalf("port of a bare guest: %d bytes of %d: %v", n, rest, err)
	}
	if _, err := conn.Write([]byte("!")); err != nil { // until then it must not power off
		tb.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		tb.Fatal(err)
	}
	return float64(rest) / took.Seconds() / (1 << 20)
}

// ProcessorTime is what the process has used so far.
func (p Process) ProcessorTime(tb testing.TB) time.Duration {
	tb.Helper()
	fields := p.stat(tb)
	const user, system, tick = 11, 12, 10 * time.Millisecond
	var sum time.Duration
	for _, i := range []int{user, system} {
		ticks, err := strconv.Atoi(fields[i])
		if err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(ticks) * tick
	}
	return sum
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
