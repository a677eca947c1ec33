//go:build e2e

package e2e_test

import (
	"crypto/md5"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestOriginalHost runs containers with a shim that is told to speak the dialect of Clear
// Containers' Go agent, to the agent of this project: it gets no specification, no credit and no
// CALL, as from an original host.
func TestOriginalHost(t *testing.T) {
	configureDialect(t, "clear-go")
	t.Run("Run", originalRun)
	t.Run("Exec", originalExec)
	t.Run("Network", originalNetwork)
	t.Run("Refused", func(t *testing.T) { originalRefused(t, nil) })
}

// TestOriginalRefusals: what hyperstart 0.7.0 cannot do is refused before it is asked, so that the
// agent of this project can stand for it.
func TestOriginalRefusals(t *testing.T) {
	configureDialect(t, "clear-c")
	originalRefused(t, map[string][]string{
		"a user other than root": {"--user", "1000"}, "fewer capabilities than usual": {"--cap-drop", "CAP_CHOWN"},
	})
}

func configureDialect(t *testing.T, dialect string) {
	t.Helper()
	shared.Configure(t, func(s *harness.Settings) {
		kernel, image := guest9P(t, s)
		s.Raw = fmt.Sprintf(`state_dir = %q
[hypervisor]
path = %q
[guest]
kernel = %q
image = %q
dialect = %q
boot_timeout = %q
[share]
type = "9p"
`, shared.StateDir(), s.QEMU, kernel, image, dialect, s.BootTimeout)
	})
}

func originalRun(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	input := strings.Repeat("0123456789abcdef", 1<<16)
	for name, tt := range map[string]struct {
		flags  []string
		script string
		want   harness.Result
	}{
		"streams": {script: "echo to stdout; echo to stderr >&2; exit 42", want: harness.Result{Stdout: "to stdout\n", Stderr: "to stderr\n", Code: 42}},
		"input":   {script: "md5sum; exit 3", want: harness.Result{Stdout: fmt.Sprintf("%x  -\n", md5.Sum([]byte(input))), Code: 3}},
		"output":  {script: "cat; cat /dev/zero | head -c 4194304 | wc -c", want: harness.Result{Stdout: input + "4194304\n"}},
		"signal":  {script: "sh -c 'kill -9 $$'; exit $?", want: harness.Result{Stderr: "Killed\n", Code: 137}},
		"user": {
			flags: []string{"--user", "1000:2000", "--env", "A=b c", "--cwd", "/tmp"}, script: `echo $(id -u) $(id -g) "$A" $PWD`,
			want: harness.Result{Stdout: "1000 2000 b c /tmp\n"},
		},
		"mounts": {
			flags:  []string{"--mount", "type=bind,src=" + dir + ",dst=/rw,options=rbind:rw", "--mount", "type=bind,src=" + dir + ",dst=/ro,options=rbind:ro"},
			script: "cat /ro/file; echo written > /rw/new; cat /ro/new; touch /ro/x 2>/dev/null || echo is read-only", want: harness.Result{Stdout: "of the host\nwritten\nis read-only\n"},
		},
		"proc": {
			script: "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo is read-only; df -m /dev/shm | tail -1 | awk '{print $2}'",
			want:   harness.Result{Stdout: "sh\n3\nis read-only\n64\n"},
		},
		"capabilities": {script: "grep CapEff /proc/self/status", want: harness.Result{Stdout: "CapEff:\t00000000a80425fb\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append(append([]string{"run", "--rm"}, tt.flags...), harness.ImageName, "original-"+name, "sh", "-c", tt.script)
			if got := shared.CtrInput(t, strings.NewReader(input), args...); got != tt.want {
				t.Errorf("got %.200s, want %.200s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", tt.want))
			}
		})
	}
	if got := shared.CtrTTY(t, "exit 5\r", "run", "--rm", "-t", harness.ImageName, "original", "sh"); got.Code != 5 {
		t.Errorf("a terminal: %+v", got)
	}
}

func originalExec(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "original", harness.Streams{}, []string{"sleep", "3600"})
	for script, want := range map[string]uint32{"exit 7": 7, "test -f /proc/1/comm": 0, "kill -15 $$": 143} {
		if out, status := shared.Output(t, task, "exec", "sh", "-c", script); status != want {
			t.Errorf("%s: status %d, want %d: %s", script, status, want, out)
		}
	}
	if got := shared.CtrTTY(t, "exit 5\r", "task", "exec", "-t", "--exec-id", "tty", "original", "sh"); got.Code != 5 {
		t.Errorf("a terminal: %+v", got)
	}
	if status := shared.KillTask(t, task); status != 137 {
		t.Errorf("exit status %d, want 137", status)
	}
}

// originalRefused: what the guest cannot have, and programs that are not there, by their names.
func originalRefused(t *testing.T, more map[string][]string) {
	shared.Watch(t)
	refused := map[string][]string{
		"a read-only root file system": {"--read-only"}, "limits of a process (rlimits)": {"--rlimit-nofile", "100"},
		"a mount that is no bind mount of the host": {"--mount", "type=tmpfs,src=tmpfs,dst=/cache"}, "a seccomp profile": {"--seccomp"},
	}
	maps.Copy(refused, more)
	for what, flags := range refused {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			id := strings.NewReplacer(" ", "-", "(", "", ")", "").Replace(what)
			got := shared.Ctr(t, append(append([]string{"run", "--rm"}, flags...), harness.ImageName, id, "true")...)
			if got.Code == 0 || !strings.Contains(got.Stderr, what+" cannot be had") {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("missing programs", originalMissing)
}

// originalMissing: programs that are not there are errors that name them, and nothing else suffers.
func originalMissing(t *testing.T) {
	t.Parallel()
	task := shared.Running(t, "original", harness.Streams{}, []string{"sleep", "3600"})
	for program, why := range map[string]string{
		"/none": "stat /none: no such file or directory", "none": "executable file not found in $PATH", "/etc/passwd": "permission denied",
	} {
		want := fmt.Sprintf("exec: %q: %s", program, why)
		if got := shared.Ctr(t, "run", "--rm", harness.ImageName, "missing", program); got.Code == 0 || !strings.Contains(got.Stderr, want) {
			t.Errorf("%s: %+v", program, got)
		}
		if got := shared.Ctr(t, "task", "exec", "--exec-id", "missing", "original", program); got.Code == 0 || !strings.Contains(got.Stderr, want) {
			t.Errorf("exec of %s: %+v", program, got)
		}
	}
	if out, status := shared.Output(t, task, "after", "echo", "goes on"); out != "goes on\n" || status != 0 {
		t.Errorf("afterwards: %q, status %d", out, status)
	}
	shared.KillTask(t, task)
}

// originalNetwork: interfaces and routes come with STARTPOD, in IPv4.
func originalNetwork(t *testing.T) {
	shared.Watch(t)
	_, pod := newPodNetwork(t)
	g := runGuest(t, shared, "originalnet", pod)
	g.must("ping -c 1 -W 10 192.0.2.1")
	g.must("ping -c 1 -W 10 198.51.100.1") // by the default route
	if out := g.must("ip addr show dev eth0"); !strings.Contains(out, "192.0.2.2/24") || !strings.Contains(out, "02:00:00:00:00:42") || !strings.Contains(out, "mtu 1400") {
		t.Errorf("the interface: %s", out)
	}
}
