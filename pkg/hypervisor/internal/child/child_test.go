package child

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// parentEnv makes the test binary a process that starts a child and waits.
const parentEnv = "CCV2_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	p, err := Start(Options{}, "/bin/sh", []string{"-c", "sleep 1000 & echo $! >&3; wait"}, os.Stdout)
	if err != nil {
		panic(err)
	}
	<-p.Done()
}

// end waits for the end of a child.
func end(t *testing.T, p *Process) hypervisor.Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-time.After(10 * time.Second):
		t.Fatal("the child does not end")
		return hypervisor.Exit{}
	}
}

// TestDescriptors: a child has no descriptor that this process was started with.
func TestDescriptors(t *testing.T) {
	inherited, err := unix.Open(t.TempDir(), unix.O_RDONLY, 0) // as a shell leaves them
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(inherited) }()
	p, err := Start(Options{}, "/bin/sh", []string{"-c", "for n; do [ ! -e /proc/$$/fd/$n ] || exit 1; done", "sh", strconv.Itoa(inherited)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(hypervisor.Exit{}, end(t, p)); diff != "" {
		t.Errorf("it has descriptor %d (-want +got):\n%s", inherited, diff)
	}
}

func TestExit(t *testing.T) {
	tests := []struct {
		name, script string
		want         hypervisor.Exit
	}{
		{"success", "", hypervisor.Exit{}},
		{"code", "echo one >&2; echo two >&2; exit 3", hypervisor.Exit{Code: 3, Stderr: "one\ntwo"}},
		{"signal", "kill -TERM $$", hypervisor.Exit{Signal: int(unix.SIGTERM)}},
		{"leaves a child with its stderr", "sleep 1000 & exit 1", hypervisor.Exit{Code: 1}},
		{"environment", `[ "$PWD" = / ] && [ -z "$HOME" ]`, hypervisor.Exit{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Start(Options{}, "/bin/sh", []string{"-c", tt.script})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, end(t, p)); diff != "" {
				t.Errorf("exit (-want +got):\n%s", diff)
			}
			if err := p.Kill(); err != nil {
				t.Errorf("kill after the end: %v", err)
			}
		})
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(Options{}, "/no/program", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// TestKill kills a child that has a child; both hold the pipe.
func TestKill(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := Start(Options{}, "/bin/sh", []string{"-c", "sleep 1000 & echo ready >&3; wait"}, w)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if got := p.Exit(); got != (hypervisor.Exit{}) {
		t.Errorf("exit of a running child: %+v", got)
	}
	if p.PID() <= 0 || p.Started().IsZero() {
		t.Errorf("pid %d, started %v", p.PID(), p.Started())
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := end(t, p).Signal; got != int(unix.SIGKILL) {
		t.Errorf("signal %d", got)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 { // ends when both have
		t.Errorf("%q, %v", rest, err)
	}
}

// TestParentKilled kills the parent of a child: the child goes with it.
func TestParentKilled(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 32)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	// The shell is told by the kernel; what it started stays, as nobody kills
	// its group, so it is killed here.
	grandchild, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	pgid, err := unix.Getpgid(grandchild)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(-pgid, unix.SIGKILL) }()
	pidfd, err := unix.PidfdOpen(pgid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000); n != 1 || err != nil {
		t.Errorf("child %d lives on after its parent: %d, %v", pgid, n, err)
	}
}

func TestTail(t *testing.T) {
	b := &tail{limit: 8}
	for _, s := range []string{"first line\n", "second\n", "3\n"} {
		if _, err := b.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.String(); got != "3" {
		t.Errorf("tail %q", got)
	}
	if len(b.data) > b.limit {
		t.Errorf("%d bytes kept", len(b.data))
	}
}

// TestKeepCaps is about the child alone: this process stays as it is.
func TestKeepCaps(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to have capabilities")
	}
	for _, keep := range []bool{true, false} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := Start(Options{KeepCaps: keep}, "/bin/sh", []string{"-c", "setpriv --dump >&3 2>&1"}, w)
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		out, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		<-p.Done()
		_ = r.Close()
		if got := strings.Contains(string(out), "no_setuid_fixup"); got != keep {
			t.Errorf("keep %v: %s", keep, out)
		}
	}
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil || bits&noSetUIDFixup != 0 {
		t.Errorf("this thread has %#x, %v", bits, err)
	}
}

// TestNoPipes: a child costs this process no pipe.
func TestNoPipes(t *testing.T) {
	before := pipes(t)
	p, err := Start(Options{}, "/bin/sh", []string{"-c", "kill -STOP $$"})
	if err != nil {
		t.Fatal(err)
	}
	if got := pipes(t); got != before {
		t.Errorf("%d pipes, %d before", got, before)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	end(t, p)
}

// pipes is how many of this process's descriptors are pipes.
func pipes(t *testing.T) (n int) {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range dir {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}
