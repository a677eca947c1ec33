//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// joining asks for namespaces of a task, as nerdctl and Docker do for
// `--network container:X` and the like.
func joining(task client.Task, kinds ...specs.LinuxNamespaceType) oci.SpecOpts {
	var all []oci.SpecOpts
	for _, kind := range kinds {
		file := strings.TrimSuffix(string(kind), "work")
		all = append(all, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: kind, Path: fmt.Sprintf("/proc/%d/ns/%s", task.Pid(), file)}))
	}
	return oci.Compose(all...)
}

// withPortSysctl sets a kernel parameter of the network, as nerdctl does in each container.
func withPortSysctl(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77"}
	return nil
}

// shmOf mounts a directory of the host as the shared memory, as for `--ipc shareable`.
func shmOf(dir string) oci.SpecOpts {
	return oci.Compose(oci.WithoutMounts("/dev/shm"), oci.WithMounts([]specs.Mount{
		{Type: "bind", Source: dir, Destination: "/dev/shm", Options: []string{"rbind", "rw"}},
	}))
}

// served is what containers of these tests serve on their loopback.
const served = `mkdir /www; echo from the loopback >/www/f; echo from memory >/dev/shm/f; exec httpd -f -p 127.0.0.1:8099 -h /www`

// TestJoinContainer runs a container that joins namespaces of another one, and one that
// goes on when that has ended.
func TestJoinContainer(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		shm := shmOf(t.TempDir())
		x := shared.RunningOn(t, runtime, id+"-x", harness.Streams{}, []string{"sh", "-c", served}, shm)
		y := shared.RunningOn(t, runtime, id+"-y", harness.Streams{}, []string{"sleep", "1000"}, shm,
			joining(x, specs.NetworkNamespace, specs.PIDNamespace, specs.IPCNamespace), withPortSysctl)
		z := shared.RunningOn(t, runtime, id+"-z", harness.Streams{}, []string{"sleep", "1000"}, shm,
			joining(y, specs.NetworkNamespace, specs.IPCNamespace)) // of one that has joined

		harness.Until(t, "the server", func() bool {
			_, status := shared.Output(t, y, "up", "wget", "-qO", "/dev/null", "http://127.0.0.1:8099/f")
			return status == 0
		})
		for name, test := range map[string]struct {
			task client.Task
			args []string
			want string
		}{
			"y-loopback": {y, []string{"wget", "-qO-", "http://127.0.0.1:8099/f"}, "from the loopback\n"},
			"z-loopback": {z, []string{"wget", "-qO-", "http://127.0.0.1:8099/f"}, "from the loopback\n"},
			"y-shm":      {y, []string{"cat", "/dev/shm/f"}, "from memory\n"},
			"z-shm":      {z, []string{"cat", "/dev/shm/f"}, "from memory\n"},
			"y-init":     {y, []string{"sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"}, "httpd -f -p 127.0.0.1:8099 -h /www "},
			"z-init":     {z, []string{"sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"}, "sleep 1000 "},
			"y-sysctl":   {y, []string{"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"}, "77\n"},
			"x-sysctl":   {x, []string{"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"}, "77\n"}, // it is one network
			"y-ps":       {y, []string{"sh", "-c", "ps | grep -c 'sleep 1000$'"}, "1\n"},
		} {
			if got, _ := shared.Output(t, test.task, name, test.args...); got != test.want {
				t.Errorf("%s: %q, want %q", name, got, test.want)
			}
		}
		for _, ns := range []string{"net", "pid", "ipc"} {
			read := func(task client.Task) string {
				link, _ := shared.Output(t, task, "link-"+ns, "readlink", "/proc/self/ns/"+ns)
				return link
			}
			if of, with := read(x), read(y); of == "" || of != with {
				t.Errorf("%s: %q, the joined has %q", ns, of, with)
			}
		}

		path := joining(x, specs.PIDNamespace)
		shared.KillTask(t, x)
		if status := shared.Finish(t, y); status != 137 {
			t.Errorf("the end of its pid namespace: status %d", status)
		}
		if got, status := shared.Output(t, z, "later", "cat", "/dev/shm/f"); got != "from memory\n" || status != 0 {
			t.Errorf("after the end of those it has joined: %q, status %d", got, status)
		}
		_, err := shared.NewTask(t, shared.ContainerOn(t, runtime, id+"-late", []string{"true"}, path), harness.Streams{})
		if err == nil {
			t.Error("namespaces of a container that has ended were joined")
		}
		if pid := fmt.Sprint(x.Pid()); err != nil && !strings.Contains(err.Error(), pid) {
			t.Errorf("the error does not name pid %s: %v", pid, err)
		}
	})
}

// TestJoinAfterTheFirst: the container that has started the VM is removed, and another
// joins one that is left.
func TestJoinAfterTheFirst(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		x := shared.RunningOn(t, runtime, id+"-x", harness.Streams{}, []string{"sleep", "1000"})
		y := shared.RunningOn(t, runtime, id+"-y", harness.Streams{}, []string{"sh", "-c", served}, joining(x, specs.NetworkNamespace))
		shared.KillTask(t, x)
		shared.Remove(t, id+"-x")
		z := shared.RunningOn(t, runtime, id+"-z", harness.Streams{}, []string{"sleep", "1000"}, joining(y, specs.NetworkNamespace, specs.PIDNamespace))
		harness.Until(t, "the server", func() bool {
			got, _ := shared.Output(t, z, "up", "wget", "-qO-", "http://127.0.0.1:8099/f")
			return got == "from the loopback\n"
		})
		if got, _ := shared.Output(t, z, "init", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"); !strings.HasPrefix(got, "httpd ") {
			t.Errorf("init is %q", got)
		}
		if err := y.Kill(shared.Context(), unix.SIGTERM); err != nil {
			t.Error(err)
		}
	})
}

// TestJoinWithoutTheNetwork: a client can set up the network of a container that joins
// process ids alone, as for `--pid container:X`, and does not touch that of X.
func TestJoinWithoutTheNetwork(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		x := shared.RunningOn(t, runtime, id+"-x", harness.Streams{}, []string{"sleep", "1000"})
		y := shared.Task(t, shared.ContainerOn(t, runtime, id+"-y", []string{"sleep", "2000"}, joining(x, specs.PIDNamespace)), harness.Streams{})
		for _, task := range []client.Task{x, y} {
			ip(t, task.Pid(), "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
		}
		if err := y.Start(shared.Context()); err != nil {
			t.Fatal(err)
		}
		if got, _ := shared.Output(t, y, "init", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"); got != "sleep 1000 " {
			t.Errorf("init is %q", got)
		}
	})
}

// ip runs the program ip in the network namespace of a process.
func ip(t *testing.T, pid uint32, args ...string) {
	t.Helper()
	args = append([]string{"-t", fmt.Sprint(pid), "-n", "ip"}, args...)
	if out, err := exec.CommandContext(t.Context(), "nsenter", args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", args, err, out)
	}
}

// TestJoinForeign: what is not in a VM is refused, not ignored.
func TestJoinForeign(t *testing.T) {
	shared.Watch(t)
	if _, err := os.Stat(filepath.Join(shared.Bin, harness.RuncShim)); err != nil {
		t.Fatal(err)
	}
	x := shared.RunningOn(t, harness.Runc, "foreign-x", harness.Streams{}, []string{"sleep", "1000"})
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		id := "foreign-" + string(kind)
		_, err := shared.NewTask(t, shared.Container(t, id, []string{"true"}, joining(x, kind)), harness.Streams{})
		if path := fmt.Sprintf("/proc/%d/ns/%s", x.Pid(), kind); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestHostUTS: a container without a UTS namespace has the host's name.
func TestHostUTS(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		want, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: os.Stderr}, []string{"hostname"}, oci.WithHostNamespace(specs.UTSNamespace))
		if status := shared.Finish(t, task); status != 0 || strings.TrimSpace(out.String()) != want {
			t.Errorf("%q, status %d; want %q", out.String(), status, want)
		}
	})
}
