//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// memoryPrograms builds the programs of testdata, and returns the option that mounts
// them at /programs, with a large file and the host's python below /usr.
func memoryPrograms(t *testing.T) oci.SpecOpts {
	t.Helper()
	dir := t.TempDir()
	if err := os.Rename(builtProgram(t, dir, "memory"), filepath.Join(dir, "go")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-O1", "-static", "-o", filepath.Join(dir, "c"), "./testdata/memoryc/memory.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	large := make([]byte, 150<<20)
	for i := 0; i < len(large); i += 4096 {
		large[i] = byte(i >> 12)
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	read := []string{"rbind", "ro"}
	return oci.WithMounts([]specs.Mount{
		{Type: "bind", Source: dir, Destination: "/programs", Options: read},
		{Type: "bind", Source: "/usr", Destination: "/usr", Options: read},
		{Type: "bind", Source: "/usr/lib", Destination: "/lib", Options: read},
		{Type: "bind", Source: "/usr/lib64", Destination: "/lib64", Options: read},
	})
}

// greedy are programs that grow until they are killed.
var greedy = []struct {
	name string
	args []string
}{
	{"go", []string{"/programs/go"}},
	{"c", []string{"/programs/c", "grow", "10000"}},
	{"python", []string{"/usr/bin/python3", "-Sc", "a = []\nwhile True: a.append(b'x' * (1 << 20))"}},
	{"awk", []string{"awk", `BEGIN { s = "0123456789"; while (length(s) < 1000000) s = s s; for (;;) a[i++] = s i }`}},
	{"at once", []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"}}, // more than the guest has
}

// TestOutOfMemory: a program that grows past the limit of its container is killed when
// it gets there, and the client hears why. With runc that is a matter of a second; a
// minute is a container that hangs.
func TestOutOfMemory(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		programs := memoryPrograms(t)
		events := shared.Record(t)
		for _, tt := range greedy {
			id := id + "-" + strings.ReplaceAll(tt.name, " ", "-")
			task := shared.RunningOn(t, runtime, id, harness.Streams{}, tt.args, programs, oci.WithMemoryLimit(128<<20))
			took := untilKilled(t, task)
			t.Logf("%s: %.1f s", tt.name, took.Seconds())
			events.Await(t, "oom", id, "")
		}
	})
}

// untilKilled is the time from the start of a task to its death.
func untilKilled(t *testing.T, task client.Task) time.Duration {
	t.Helper()
	begin := time.Now()
	exited, err := task.Wait(shared.Context())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-exited:
	case <-time.After(harness.Patience / 2):
		t.Errorf("%s hangs at its limit", task.ID())
		shared.KillTask(t, task)
		return time.Since(begin)
	}
	took := time.Since(begin)
	if status := shared.Finish(t, task); status != 137 {
		t.Errorf("%s: status %d, want 137", task.ID(), status)
	}
	return took
}

// TestGuestOutOfMemory: without a limit that of the guest holds. (The host's is not
// tried.) Others of the guest live on.
func TestGuestOutOfMemory(t *testing.T) {
	shared.Watch(t)
	programs := memoryPrograms(t)
	for _, tt := range greedy[:3] {
		task := shared.Running(t, "guest-memory-"+tt.name, harness.Streams{}, tt.args, programs)
		t.Logf("%s: %.1f s", tt.name, untilKilled(t, task).Seconds())
	}
	task := shared.Running(t, "guest-memory", harness.Streams{}, []string{"sleep", "1000"}, programs)
	for _, tt := range greedy[:3] {
		if out, status := shared.Output(t, task, tt.name, tt.args...); status != 137 {
			t.Errorf("exec of %s: status %d, %s", tt.name, status, out)
		}
	}
	shared.KillTask(t, task)
}

// TestInnerOutOfMemory: the same for a limit that a container has set itself, in a group of
// its own, as a container engine in it does. (With runc that needs a host with cgroup v2.)
func TestInnerOutOfMemory(t *testing.T) {
	shared.Watch(t)
	programs := memoryPrograms(t)
	writable := oci.WithMounts([]specs.Mount{{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"rw"}}})
	task := shared.Running(t, "inner-memory", harness.Streams{}, []string{"sleep", "1000"}, programs, oci.WithPrivileged, oci.WithoutMounts("/sys/fs/cgroup"), writable)
	const inner = `cd /sys/fs/cgroup && mkdir init inner && for p in $(cat cgroup.procs); do echo $p >init/cgroup.procs; done 2>/dev/null
echo +memory >cgroup.subtree_control && echo 64m >inner/memory.max && echo $$ >inner/cgroup.procs || exit
/programs/go >/dev/null; echo $?; grep 'oom_kill ' inner/memory.events`
	if out, status := shared.Output(t, task, "grow", "sh", "-c", inner); out != "137\noom_kill 1\n" || status != 0 {
		t.Errorf("status %d, %s", status, out)
	}
	shared.KillTask(t, task)
}

// TestTmpfsWithoutSize: what fits the limit of the container fits its tmpfs, in one file and
// in many. The kernel's default is half of the memory, which here is little more than the
// limit.
func TestTmpfsWithoutSize(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		var out harness.Buffer
		const fill = "head -c 210m /dev/zero >/t/large && rm /t/large && mkdir /t/d && cd /t/d && i=0 && while [ $i -lt 50000 ]; do : >$i || exit; i=$((i+1)); done && echo done"
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", fill}, oci.WithMemoryLimit(256<<20),
			oci.WithMounts([]specs.Mount{{Type: "tmpfs", Source: "tmpfs", Destination: "/t"}}))
		if status := shared.Finish(t, task); out.String() != "done\n" {
			t.Errorf("status %d, %s", status, out.String())
		}
	})
}

// TestMemoryPressure: what gets on at its limit is not killed: programs that read and
// write much more than fits, beside one that has most of the memory for itself. What is
// reserved and not used counts for nothing.
func TestMemoryPressure(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		programs := memoryPrograms(t)
		volume := oci.WithMounts([]specs.Mount{{Type: "bind", Source: t.TempDir(), Destination: "/volume", Options: []string{"rbind"}}})
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, programs, volume, oci.WithMemoryLimit(64<<20))
		for _, tt := range []struct{ name, script, want string }{
			{"reserve", "/programs/c reserve 2000", "done\n"},
			{"read", "/programs/c hold 54 sh -c 'for i in 1 2 3; do wc -c </programs/large; done'", strings.Repeat("157286400\n", 3)},
			{"tar", "cd /programs && tar cf /volume/tar . && tar tf /volume/tar | grep -c large && rm /volume/tar", "1\n"},
			{"tight-tar", "/programs/c hold 58 sh -c 'tar cf /volume/tar /programs 2>/dev/null && tar tf /volume/tar | grep -c large'", "1\n"},
			{"write", "/programs/c hold 58 dd if=/dev/zero of=/volume/zero bs=64k count=1600 2>/dev/null; wc -c </volume/zero", "104857600\n"},
			{"map", "/programs/c map /programs/large 3000", "381929\n"},
			{"tight-map", "/programs/c hold 57 /programs/c map /programs/large 1000", "126828\n"},
		} {
			out, status := shared.Output(t, task, tt.name, "sh", "-c", tt.script)
			if out != tt.want || status != 0 {
				t.Errorf("%s: status %d, %q, want %q", tt.name, status, out, tt.want)
			}
		}
		shared.KillTask(t, task)
	})
}

// TestMountsOutliveMemory: after pressure, kills and dropped caches every mount is what it
// was.
func TestMountsOutliveMemory(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		programs := memoryPrograms(t)
		dir, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
		for _, path := range []string{filepath.Join(dir, "in"), file} {
			if err := os.WriteFile(path, []byte("there\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		mounts := oci.WithMounts([]specs.Mount{
			{Type: "bind", Source: dir, Destination: "/volume", Options: []string{"rbind"}},
			{Type: "bind", Source: file, Destination: "/file", Options: []string{"rbind", "ro"}},
			{Type: "tmpfs", Source: "tmpfs", Destination: "/memory", Options: []string{"size=1m"}},
		})
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, programs, mounts,
			oci.WithMemoryLimit(96<<20), oci.WithPrivileged)
		const look = "cd / && cat /volume/in /file && echo kept >/volume/new && cat /volume/new && rm /volume/new && wc -c </programs/large && " +
			"echo m >/memory/f && ls -l /bin/sh && wc -l </proc/self/mountinfo"
		want, status := shared.Output(t, task, "before", "sh", "-c", look)
		if status != 0 || !strings.HasPrefix(want, "there\nthere\nkept\n157286400\n") {
			t.Fatalf("status %d, %q", status, want)
		}
		for _, name := range []string{"go", "c"} {
			if _, status := shared.Output(t, task, name, "sh", "-c", "/programs/"+name+" grow 10000"); status != 137 {
				t.Errorf("%s: status %d", name, status)
			}
			if runtime == harness.Runtime { // not those of the host
				if out, status := shared.Output(t, task, "drop-"+name, "sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"); status != 0 {
					t.Errorf("drop caches: status %d, %s", status, out)
				}
			}
			if got, status := shared.Output(t, task, "after-"+name, "sh", "-c", look); got != want || status != 0 {
				t.Errorf("after %s: status %d, %q, want %q", name, status, got, want)
			}
		}
		shared.KillTask(t, task)
	})
}

// TestMemoryGivenBack: what a container frees is the host's again, of a VM that has booted and of
// one from a template.
func TestMemoryGivenBack(t *testing.T) {
	for _, source := range []string{"boot", "template"} {
		t.Run(source, func(t *testing.T) {
			shared.Configure(t, func(s *harness.Settings) { s.NoTemplates = source == "boot" })
			id := "gives-back-" + source
			task := shared.Running(t, id, harness.Streams{}, []string{"sleep", "1000000"})
			vmm := shared.AwaitProcess(t, harness.QEMU, id)
			const mib = 56 // of 64
			before := vmm.PSS(t)
			if out, status := shared.Output(t, task, "use", "sh", "-c", fmt.Sprintf("dd if=/dev/zero of=/dev/shm/file bs=1M count=%d", mib)); status != 0 {
				t.Fatalf("%d: %s", status, out)
			}
			used := vmm.PSS(t)
			if out, status := shared.Output(t, task, "free", "rm", "/dev/shm/file"); status != 0 {
				t.Fatalf("%d: %s", status, out)
			}
			harness.Until(t, fmt.Sprintf("return of the memory (%.0f MiB before, %.0f with the file)", before, used), func() bool { return vmm.PSS(t) < used-mib*2/3 })
		})
	}
}
