//go:build e2e

package e2e_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// bind is a bind mount as `-v source:destination` makes it.
func bind(source, destination string, options ...string) specs.Mount {
	return specs.Mount{Type: "bind", Source: source, Destination: destination, Options: append([]string{"rbind", "rprivate"}, options...)}
}

// withHostIPC is what `--ipc host` makes of a specification: no namespace, and the
// host's queues and shared memory.
func withHostIPC(ctx context.Context, c oci.Client, container *containers.Container, s *oci.Spec) error {
	for _, place := range []string{"/dev/shm", "/dev/mqueue"} {
		if err := oci.WithoutMounts(place)(ctx, c, container, s); err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, bind(place, place, "nosuid", "noexec", "nodev"))
	}
	return oci.WithHostNamespace(specs.IPCNamespace)(ctx, c, container, s)
}

// TestHostIPC: two containers of a VM that ask for the host's IPC share the VM's,
// System V, POSIX queues and memory, whether the host has queues or not.
func TestHostIPC(t *testing.T) {
	shared.Watch(t)
	first := shared.Running(t, "ipc-first", harness.Streams{}, []string{"sleep", "1000"}, withHostIPC)
	second := shared.Running(t, "ipc-second", harness.Streams{}, []string{"sleep", "1000"}, withHostIPC, sandboxOf("ipc-first"))
	if _, status := shared.Output(t, first, "make", "sh", "-c", "echo here > /dev/shm/file && touch /dev/mqueue/queue"); status != 0 {
		t.Errorf("make a file and a queue: status %d", status)
	}
	if out, _ := shared.Output(t, second, "look", "sh", "-c", "cat /dev/shm/file; ls /dev/mqueue"); out != "here\nqueue\n" {
		t.Errorf("the second container sees %q", out)
	}
	firstNS, _ := shared.Output(t, first, "ns", "readlink", "/proc/self/ns/ipc")
	secondNS, _ := shared.Output(t, second, "ns", "readlink", "/proc/self/ns/ipc")
	if firstNS != secondNS || firstNS == "" {
		t.Errorf("namespaces %q and %q, want one", firstNS, secondNS)
	}
	shared.KillTask(t, second)
	shared.KillTask(t, first)
}

// TestMountsOfTheKernel binds what the host's kernel shows of itself. Under runc the
// container sees the kernel that it runs on; so it does in a VM.
func TestMountsOfTheKernel(t *testing.T) {
	shared.Watch(t)
	mounts := []specs.Mount{
		bind("/proc", "/host/proc", "ro"), bind("/sys", "/host/sys", "ro"), bind("/dev", "/host/dev"), bind("/proc/self", "/host/self"), bind("/dev/pts", "/host/pts"),
		bind("/sys/fs/cgroup", "/host/cgroup", "ro"), bind("/proc/sys/kernel", "/host/kernel", "ro"), bind("/dev/null", "/host/null"),
	}
	// One line for each: the kind, whether it is read-only, and that something of
	// this kernel is there.
	const look = `
kind() { grep " $1 " /proc/self/mounts | tail -n 1 | sed 's/^[^ ]* [^ ]* \([^ ]*\) \(r[ow]\).*/\1 \2/'; }
for d in proc sys dev pts kernel; do echo $d $(kind /host/$d); done
[ "$(cat /host/proc/sys/kernel/osrelease)" = "$(uname -r)" ] && echo this kernel
[ "$(cat /host/kernel/osrelease)" = "$(uname -r)" ] && echo this kernel as well
[ -r /host/self/status ] && echo itself
[ -d /host/sys/class/net/lo ] && echo devices
[ -d /host/proc/1 ] && echo processes
[ -c /host/dev/zero ] && echo nodes
[ -c /host/pts/ptmx ] && echo terminals
[ -n "$(find /host/cgroup -name cgroup.procs | head -n 1)" ] && echo groups
echo gone > /host/null && [ -c /host/null ] && echo null
echo x 2>/dev/null > /host/proc/sys/kernel/hostname || echo not writable`
	seen := make(map[string]string)
	for runtime, id := range map[string]string{harness.Runc: "kernel-runc", harness.Runtime: "kernel"} {
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: os.Stderr}, []string{"sh", "-c", look}, oci.WithMounts(mounts))
		if status := shared.Finish(t, task); status != 0 {
			t.Errorf("%s: status %d", id, status)
		}
		seen[runtime] = out.String()
	}
	if seen[harness.Runtime] != seen[harness.Runc] || !strings.Contains(seen[harness.Runc], "this kernel") {
		t.Errorf("seen in the VM:\n%s\nwith runc:\n%s", seen[harness.Runtime], seen[harness.Runc])
	}
}

// TestMountOfNothing: a source that does not exist is an error that names it, and
// leaves nothing.
func TestMountOfNothing(t *testing.T) {
	shared.Watch(t)
	for _, source := range []string{"/run/no-such-file", "/proc/no-such-file"} {
		for runtime, id := range map[string]string{harness.Runc: "nothing-runc", harness.Runtime: "nothing"} {
			container := shared.ContainerOn(t, runtime, id, []string{"true"}, oci.WithMounts([]specs.Mount{bind(source, "/there")}))
			_, err := shared.NewTask(t, container, harness.Streams{})
			if err == nil || !strings.Contains(err.Error(), source) || !strings.Contains(err.Error(), "no such file or directory") {
				t.Errorf("%s with %s: %v", source, runtime, err)
			}
			shared.Remove(t, id)
		}
	}
}
