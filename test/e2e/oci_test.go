//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// field is a field of the specification, and what a program sees of it.
type field struct {
	name  string
	set   func(s *specs.Spec)
	probe string // of a shell
}

// ociFields are set in one container, all of them.
var ociFields = []field{
	{"process.user", func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 0, GID: 7, AdditionalGids: []uint32{11, 12}, Umask: new(uint32(0o137))}
	}, "id; umask; grep -e Uid -e Gid -e Groups -e Umask /proc/self/status"},
	{"process.env", func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "A=1", "A=2", "EMPTY=", "SPACE=a b")
	}, `tr '\0' '\n' </proc/1/environ | sort`},
	{"process.cwd", func(s *specs.Spec) { s.Process.Cwd = "/made/by/runtime" }, "pwd; stat -c '%A %u %g' /made /made/by /made/by/runtime"},
	{"process.capabilities", func(s *specs.Spec) {
		caps := append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN", "CAP_SYS_NICE", "CAP_IPC_LOCK")
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps, Inheritable: caps[:3], Ambient: caps[:2]}
	}, "grep Cap /proc/1/status"},
	{"process.noNewPrivileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }, "grep NoNew /proc/1/status"},
	{"process.oomScoreAdj", func(s *specs.Spec) { s.Process.OOMScoreAdj = new(321) }, "cat /proc/1/oom_score_adj"},
	{"process.scheduler", func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
	}, "cut -d' ' -f 19,40,41 /proc/1/stat"},
	{"process.ioPriority", func(s *specs.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	}, "ionice -p 1"},
	{"hostname", func(s *specs.Spec) { s.Hostname = "spec-host" }, "hostname; cat /proc/sys/kernel/hostname"},
	{"domainname", func(s *specs.Spec) { s.Domainname = "spec.domain" }, "cat /proc/sys/kernel/domainname"},
	{"mounts tmpfs", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{
			"nosuid", "noexec", "nodev", "size=1m", "mode=1750", "uid=5", "gid=6",
		}})
	}, "stat -c '%A %u %g' /t; grep ' /t ' /proc/self/mounts | grep -o -w -e nosuid -e noexec -e nodev -e size=1024k"},
	{"mounts tmpcopyup", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "mode=755"}})
	}, "ls /etc; grep -c ' /etc tmpfs' /proc/self/mounts"},
	{"mounts recursive", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/ro", Type: "bind", Source: "/usr/share", Options: []string{"rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"}})
	}, "touch /ro/x; for o in ro nosuid nodev noexec noatime; do grep ' /ro ' /proc/self/mounts | grep -c -w $o; done"},
	{"mounts times", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/na", Type: "tmpfs", Source: "x", Options: []string{"noatime", "nodiratime", "sync", "dirsync"}})
	}, "for o in noatime nodiratime sync dirsync; do grep ' /na ' /proc/self/mounts | grep -c -w $o; done"},
	{"mounts relative", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "rel/dir", Type: "tmpfs", Source: "tmpfs"})
	}, "grep -c ' /rel/dir tmpfs' /proc/self/mounts"},
	{"linux.sysctl", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/log_martians": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "20", "kernel.msgmax": "9000"}
	}, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/log_martians /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/msgmax"},
	{"linux.devices", func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices,
			specs.LinuxDevice{Path: "/dev/mine", Type: "c", Major: 1, Minor: 3, FileMode: new(os.FileMode(0o640)), UID: new(uint32(3)), GID: new(uint32(4))},
			specs.LinuxDevice{Path: "/dev/deep/er", Type: "c", Major: 1, Minor: 5}, specs.LinuxDevice{Path: "/dev/pipe", Type: "p"})
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(3)), Access: "rw"},
			specs.LinuxDeviceCgroup{Allow: false, Type: "c", Major: new(int64(1)), Minor: new(int64(8)), Access: "rwm"})
	}, "stat -c '%n %F %t %T %a %u %g' /dev/mine /dev/deep/er /dev/pipe; ls -1 /dev | grep -v core; echo x >/dev/mine && echo written; head -c 1 /dev/random >/dev/null && echo read; mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2"},
	{"linux.maskedPaths", func(s *specs.Spec) {
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/version", "/usr", "/no/such")
		s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/var", "/no/such")
	}, "cat /proc/version; ls -A /usr; touch /var/x"},
	{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" }, "grep -c 'shared:' /proc/self/mountinfo | sed 's/[1-9][0-9]*/some/'; awk '$5 == \"/\"' /proc/self/mountinfo | grep -o shared"},
	{"linux.personality", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "uname -m; cat /proc/1/personality"},
	{"linux.seccomp", func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog},
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"sethostname"}, Action: specs.ActErrno, ErrnoRet: new(uint(28))},
				{Names: []string{"no_such_call"}, Action: specs.ActErrno},
				{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: new(uint(5)), Args: []specs.LinuxSeccompArg{{Index: 1, Value: 10, Op: specs.OpEqualTo}}},
				{Names: []string{"settimeofday", "clock_settime"}, Action: specs.ActKillProcess},
			},
		}
	}, "grep Seccomp: /proc/1/status; hostname x; kill -10 1; kill -0 1 && echo there; date -s 2000-01-01; echo $?"},
	{"linux.namespaces", func(*specs.Spec) {}, "for n in cgroup ipc mnt pid user uts; do test -e /proc/self/ns/$n && echo $n; done; echo $$"},
}

// edited is a specification that was changed.
func edited(changes ...func(s *specs.Spec)) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		for _, change := range changes {
			change(s)
		}
		return nil
	}
}

// TestOCIFields: a program finds each field of the specification as with runc.
func TestOCIFields(t *testing.T) {
	shared.Watch(t)
	var script strings.Builder
	changes := make([]func(*specs.Spec), len(ociFields))
	for i, f := range ociFields {
		fmt.Fprintf(&script, "echo '== %s'; { %s\n} 2>&1\n", f.name, f.probe+";")
		changes[i] = f.set
	}
	run := func(runtime, id string) map[string]string {
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", script.String()}, edited(changes...))
		shared.Finish(t, task)
		sections := make(map[string]string)
		for _, section := range strings.Split("\n"+out.String(), "\n== ")[1:] {
			name, text, _ := strings.Cut(section, "\n")
			sections[name] = text
		}
		return sections
	}
	theirs, ours := run(harness.Runc, "fields-runc"), run(harness.Runtime, "fields")
	for _, f := range ociFields {
		if diff := cmp.Diff(theirs[f.name], ours[f.name]); diff != "" || theirs[f.name] == "" {
			t.Errorf("%s: with runc %q, -runc +ccv2:\n%s", f.name, theirs[f.name], diff)
		}
	}
}

// TestOCIClocks: a time namespace has the offsets that are asked for, for the init
// process and for what is executed later.
func TestOCIClocks(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		const day = 86400
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, edited(func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000 * day}, "monotonic": {Secs: 1000 * day}}
		}))
		out, _ := shared.Output(t, task, id+"-exec", "cut", "-d.", "-f1", "/proc/uptime")
		if up, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || up < 1000*day || up > 2000*day {
			t.Errorf("up since %q seconds", out)
		}
		shared.KillTask(t, task)
	})
}

// TestOCIClocksShared: with a time namespace, which Docker gives each container, one can be among the processes of
// the host, and so of its VM, and of another container.
func TestOCIClocksShared(t *testing.T) {
	clocks := edited(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	})
	besideRunc(t, func(t *testing.T, runtime, id string) {
		x := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1234"})
		for name, test := range map[string]struct {
			pids  oci.SpecOpts
			probe string
		}{
			"host":   {oci.WithHostNamespace(specs.PIDNamespace), "test $$ -gt 1"},
			"joined": {joining(x, specs.PIDNamespace), "tr '\\0' ' ' </proc/1/cmdline | grep 'sleep 1234'"},
		} {
			task := shared.RunningOn(t, runtime, id+"-"+name, harness.Streams{}, []string{"sh", "-c", test.probe}, test.pids, clocks)
			if status := shared.Finish(t, task); status != 0 {
				t.Errorf("%s: status %d", name, status)
			}
		}
		shared.KillTask(t, x)
	})
}

// TestOCIExec: what an exec process has of its own.
func TestOCIExec(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, edited(func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
			s.Process.User.Umask = new(uint32(0o027))
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
		}))
		out, _ := shared.Output(t, task, id+"-exec", "sh", "-c", "cut -d' ' -f 40,41 /proc/self/stat; ionice -p $$; umask; grep Cpus_allowed_list /proc/self/status")
		if want := "0 5\nidle\n0027\nCpus_allowed_list:\t0\n"; out != want {
			t.Errorf("an exec sees %q, want %q", out, want)
		}
		shared.KillTask(t, task)
	})
}

// TestOCIUnified: the guest has cgroup v2 whatever the host has.
func TestOCIUnified(t *testing.T) {
	shared.Watch(t)
	var out harness.Buffer
	task := shared.RunningOn(t, harness.Runtime, "unified", harness.Streams{Stdout: &out, Stderr: &out}, []string{
		"cat", "/sys/fs/cgroup/memory.high", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/memory.oom.group",
	},
		edited(func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}})
			// The last two are what the kubelet gives every container.
			s.Linux.Resources.Unified = map[string]string{"memory.high": "50003968", "pids.max": "77", "memory.swap.max": "0", "memory.oom.group": "1"}
		}))
	if status := shared.Finish(t, task); status != 0 || out.String() != "50003968\n77\n0\n1\n" {
		t.Errorf("status %d, %q", status, out.String())
	}
}

// refusals are what a container in a VM cannot have, and words of the error.
var refusals = []struct {
	words string
	set   func(s *specs.Spec)
}{
	{"process.cwd \"tmp\": it must be an absolute path", func(s *specs.Spec) { s.Process.Cwd = "tmp" }},
	{"process.apparmorProfile \"mine\": the guest has none", func(s *specs.Spec) { s.Process.ApparmorProfile = "mine" }},
	{"linux.seccomp.listenerPath \"/run/l\": a process of the host", func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/l"}
	}},
	{"mounts.type \"overlay\" at /m: what it mounts is on the host", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/usr:/etc"}})
	}},
	{"block device /dev/x 4095:3: the host has no such disk", withDevice("b", 4095, 3)},
	{"device /dev/x (c 195:0) is the host's", withDevice("c", 195, 0)},
}

// withDevice adds a device and the right to use it.
func withDevice(kind string, major, minor int64) func(s *specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/x", Type: kind, Major: major, Minor: minor})
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rwm"})
	}
}

// TestOCIRefused: nothing is ignored in silence, and nothing is left of the attempt.
func TestOCIRefused(t *testing.T) {
	shared.Watch(t)
	for i, r := range refusals {
		container := shared.ContainerOn(t, harness.Runtime, "refused-"+strconv.Itoa(i), []string{"true"}, edited(r.set))
		if _, err := shared.NewTask(t, container, harness.Streams{}); err == nil || !strings.Contains(err.Error(), r.words) {
			t.Errorf("%q is not in the error: %v", r.words, err)
		}
	}
}

// TestOCIDevices: devices of drivers that the guest's kernel loads when it is asked.
func TestOCIDevices(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", ": </dev/x && echo opened"}, edited(withDevice("c", 10, 200)))
		if status := shared.Finish(t, task); status != 0 || out.String() != "opened\n" {
			t.Errorf("/dev/net/tun: status %d, %q", status, out.String())
		}
	})
}
