//go:build e2e

package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// seen is what a container sees of the size of its VM. What it says first is MemTotal in MiB.
const seen = `
awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo
echo "nproc $(nproc)"
echo "cpuinfo $(grep -c ^processor /proc/cpuinfo)"
echo "online $(cat /sys/devices/system/cpu/online)"
echo "affinity $(awk '$1 == "Cpus_allowed_list:" { print $2 }' /proc/self/status)"
echo "topology $(awk -F: '/^(siblings|cpu cores|physical id)/ { printf "%s", $2 }' /proc/cpuinfo)"
echo "threads $(cat /proc/sys/kernel/threads-max)"
echo "files $(cat /proc/sys/fs/file-max)"
echo "watches $(cat /proc/sys/fs/inotify/max_user_watches)"
echo "user $(cat /proc/sys/user/max_*_namespaces | tr '\n' ' ')"
echo "tcp_mem $(cat /proc/sys/net/ipv4/tcp_mem)"
echo "udp_mem $(cat /proc/sys/net/ipv4/udp_mem)"
echo "tcp_rmem $(cat /proc/sys/net/ipv4/tcp_rmem)"
echo "tcp_wmem $(cat /proc/sys/net/ipv4/tcp_wmem)"
echo "nproc limit $(ulimit -u)"
echo "signals limit $(ulimit -i)"
mkdir /new && mount -t tmpfs none /new && echo "tmpfs $(df -k /new | awk 'END { print $2 }')"
`

// TestTemplateSizes: a container in a VM that goes on from a template of a smaller size sees what
// it sees in one that has booted with its size, within what a kernel takes for itself.
func TestTemplateSizes(t *testing.T) {
	dir := templates(t, false)
	// The usual one and the least, which emulated guests have for each number of vCPUs.
	for _, size := range [][]string{nil, {"-memory", "100"}, {"-cpus", "2"}, {"-cpus", "2", "-memory", "100"}} {
		if out, err := ccv2(t, append([]string{"template", "build"}, size...)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for name, args := range map[string][]string{
		"usual":         nil,
		"least":         {"--memory-limit", fmt.Sprint(16 << 20)},
		"small":         {"--memory-limit", fmt.Sprint(257 << 20)},
		"odd":           {"--memory-limit", fmt.Sprint(801<<20 + 1)},
		"large":         {"--memory-limit", fmt.Sprint(4 << 30), "--cpu-quota", "200000", "--cpu-period", "100000"},
		"more-vcpus":    {"--cpu-quota", "150000", "--cpu-period", "100000"},
		"small-2-vcpus": {"--cpu-quota", "200000", "--cpu-period", "100000", "--memory-limit", fmt.Sprint(100 << 20)},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]map[string]string{}
			for _, source := range []string{"template", "boot"} {
				id := "size-" + name + "-" + source
				shared.Configure(t, func(s *harness.Settings) { s.Templates, s.NoTemplates = dir, source == "boot" })
				run := append([]string{"run", "--rm", "--privileged"}, args...)
				out := shared.CtrOK(t, append(run, harness.ImageName, id, "sh", "-c", seen)...)
				if from := sources(shared.Log())[id]; from != source {
					t.Errorf("the VM is from %q, want %q:\n%s", from, source, warnings(shared.Log()))
				}
				t.Logf("%s:\n%s", source, out)
				got[source] = map[string]string{}
				for line := range strings.Lines(out) {
					key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
					if value == "" {
						key, value = "MiB", key
					}
					got[source][key] = value
				}
			}
			for key, want := range got["boot"] {
				if !alike(got["template"][key], want) {
					t.Errorf("%s is %q, want %q", key, got["template"][key], want)
				}
			}
		})
	}
}

// warnings are the lines of a log about templates that cannot be used.
func warnings(log string) string {
	var all []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=warning") && strings.Contains(line, "template") {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}

// alike reports whether the words are equal, or numbers that differ by what depends on what a
// kernel takes of its memory when it boots.
func alike(got, want string) bool {
	words, others := strings.Fields(got), strings.Fields(want)
	if len(words) != len(others) {
		return false
	}
	for i := range words {
		a, errA := strconv.ParseFloat(words[i], 64)
		b, errB := strconv.ParseFloat(others[i], 64)
		switch {
		case words[i] == others[i]:
		case errA != nil || errB != nil || b < 100 || a < b*0.9 || a > b*1.1:
			return false
		}
	}
	return true
}

// notLarger is how often the log says that a VM was not made larger.
func notLarger() int { return strings.Count(shared.Log(), "did not become as large as it is to be") }

// TestTemplateNotLarger: where a guest cannot use what is plugged, larger VMs boot with their size,
// and those of the template's go on from it.
func TestTemplateNotLarger(t *testing.T) {
	dir := templates(t, false)
	shared.Configure(t, func(s *harness.Settings) {
		// The driver is a module of the distribution's kernels, and built into our own.
		s.Templates, s.NoTemplates, s.KernelArg = dir, false, "module_blacklist=virtio_mem initcall_blacklist=virtio_mem_driver_init"
	})
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := notLarger()
	for _, id := range []string{"first", "second"} {
		out := from(t, "boot", "not-larger-"+id, "--memory-limit="+fmt.Sprint(1<<30), "awk", `$1 == "MemTotal:" { print int($2 / 1024) }`, "/proc/meminfo")
		if mib, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || mib < 1024 {
			t.Errorf("%s: the VM has %q MiB", id, out)
		}
	}
	if n := notLarger() - before; n != 1 {
		t.Errorf("the log says %d times that a VM was not made larger, want once", n)
	}
	from(t, "template", "not-larger-usual", "true")
	if out, err := ccv2(t, "template", "list"); err != nil || !strings.Contains(out, "virtio_mem") {
		t.Errorf("ccv2 template list does not say why: %v\n%s", err, out)
	}
}

// TestTemplateMemory: files are what they were when the guest's buffers are in memory that was
// plugged, and a limit is one that is met.
func TestTemplateMemory(t *testing.T) {
	templates(t, false)
	if out, err := ccv2(t, "template", "build", "-memory", "1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const script = `
set -e
mkdir /mem
mount -t tmpfs -o size=1g none /mem
head -c 17m /dev/urandom >/mem/b
for i in 1 2 3 4 5 6 7 8 9 10; do cat /mem/b; done >/mem/a # more than the VM has without
rm /mem/b
dd if=/mem/a of=/direct bs=1M oflag=direct 2>/dev/null
cp /mem/a /cached
sync
echo 3 >/proc/sys/vm/drop_caches
cmp /mem/a /cached
dd if=/direct bs=1M iflag=direct 2>/dev/null | cmp - /mem/a
rm /mem/a
echo 3 >/proc/sys/vm/drop_caches
tail /dev/zero || echo "killed $?"
`
	out := shared.CtrOK(t, "run", "--rm", "--privileged", "--memory-limit", fmt.Sprint(300<<20), harness.ImageName, "plugged", "sh", "-c", script)
	if got := sources(shared.Log())["plugged"]; got != "template" {
		t.Errorf("the VM is from %q:\n%s", got, warnings(shared.Log()))
	}
	if !strings.HasSuffix(out, "killed 137\n") {
		t.Errorf("got:\n%s", out)
	}
}
