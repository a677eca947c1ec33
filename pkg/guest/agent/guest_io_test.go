package agent_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func testStatuses(t *testing.T, v *vm) {
	for i, tt := range []struct {
		script string
		want   int
	}{{"exit 0", 0}, {"exit 127", 127}, {"kill -9 $$; sleep 100", 0}, {"exit 255", 255}} {
		id := fmt.Sprintf("status%d", i)
		script := tt.script
		if i == 2 {
			// An init ignores its own signals; its child does not, and the
			// shell reports the child's end in the usual way.
			script, tt.want = "sh -c 'kill -9 $$'; exit $?", 137
		}
		p := v.run(id, spec("sh", "-c", script))
		if got := p.wait(); got != tt.want {
			t.Errorf("%s: got status %d, want %d", script, got, tt.want)
		}
		v.remove(id)
	}
}

func testPod(t *testing.T, v *vm) {
	s := spec("sh", "-c", "hostname; cat /proc/sys/net/core/somaxconn; cat /proc/self/cgroup; ls / >/dev/null 2>&1; cat /proc/net/route | wc -l")
	// The pod's own UTS namespace shows the pod's name.
	s.Linux.Namespaces = s.Linux.Namespaces[:3]
	s.Hostname = ""
	p := v.run("pod", s)
	if got := p.wait(); got != 0 {
		t.Errorf("got status %d", got)
	}
	if want := "pod\n1234\n0::/ccv2/pod\n1\n"; p.stdout.String() != want {
		t.Errorf("got %q, want %q (stderr %q)", p.stdout.String(), want, p.err.String())
	}
	v.remove("pod")
}

// testStdin sends 20 MiB through cat and compares what comes back.
func testStdin(t *testing.T, v *vm) {
	const total = 20 << 20
	data := make([]byte, total)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	p := v.run("cat", spec("cat"))
	start := time.Now()
	go func() {
		window, rest := hyperstart.CreditWindow, data
		for len(rest) > 0 {
			for window == 0 {
				window += <-p.out.credit
			}
			n := min(len(rest), window, hyperstart.MaxTTYPayload)
			p.send(rest[:n])
			rest, window = rest[n:], window-n
		}
		p.send(nil)
	}()
	if got := p.wait(); got != 0 {
		t.Errorf("got status %d", got)
	}
	took := time.Since(start)
	t.Logf("20 MiB round trip in %v, %.1f MiB/s", took, 20/took.Seconds())
	if sha256.Sum256(data) != sha256.Sum256(p.stdout.Bytes()) {
		t.Errorf("got %d bytes back that differ from %d bytes sent", p.stdout.Len(), total)
	}
	v.remove("cat")
}

// testSlowReader checks that a stream without credit stops at the window, that
// other streams go on meanwhile, and that nothing is lost.
func testSlowReader(t *testing.T, v *vm) {
	const total = 3 << 20
	p, req := v.streamsOf(false)
	p.out.manual = true
	s := spec("sh", "-c", fmt.Sprintf("head -c %d /proc/self/fd/3 2>/dev/null; yes | head -c %d", total, total))
	v.call(hyperstart.NewContainer, request(t, "slow", s, req))
	v.call(hyperstart.StartContainer, hyperstart.ContainerRef{Container: "slow"})
	got := 0
	for got < hyperstart.CreditWindow {
		b, err := v.message(p.out)
		must(t, err)
		got += len(b)
	}
	if got != hyperstart.CreditWindow {
		t.Errorf("guest sent %d bytes without credit, the window is %d", got, hyperstart.CreditWindow)
	}
	other := v.run("other", spec("echo", "alive"))
	if status := other.wait(); status != 0 || other.stdout.String() != "alive\n" {
		t.Errorf("beside a stalled stream: got %d %q", status, other.stdout.String())
	}
	v.remove("other")
	if n := len(p.out.messages); n != 0 {
		t.Errorf("guest sent %d messages more than the window", n)
	}
	for unacknowledged := got; ; {
		if unacknowledged > 0 {
			v.sendTTY(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: p.out.seq, Bytes: uint32(unacknowledged)}))
		}
		b, err := v.message(p.out)
		must(t, err)
		if len(b) == 0 {
			break
		}
		got, unacknowledged = got+len(b), len(b)
	}
	if got != total {
		t.Errorf("got %d bytes, want %d", got, total)
	}
	_, err := v.message(p.out) // the status
	must(t, err)
	v.remove("slow")
}

func testTerminal(t *testing.T, v *vm) {
	s := spec("sh", "-c", "stty size; read line; echo got:$line; stty size; sleep 100")
	s.Process.Terminal = true
	p, req := v.streamsOf(true)
	req.Rows, req.Columns = 33, 99
	v.call(hyperstart.NewContainer, request(t, "tty", s, req))
	v.call(hyperstart.StartContainer, hyperstart.ContainerRef{Container: "tty"})
	p.await("33 99\r\n")
	v.call(hyperstart.WinSize, hyperstart.WinSizeBySeq{Seq: p.out.seq, Row: 44, Column: 111})
	p.send(nil) // no end of input for a terminal
	p.send([]byte("hello\n"))
	p.await("got:hello\r\n44 111\r\n")
	v.call(hyperstart.WinSize, hyperstart.WinSizeByName{Container: "tty", Process: "init", Row: 1, Column: 2})
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "tty", Signal: 9})
	if got := p.wait(); got != 137 {
		t.Errorf("got status %d, want 137", got)
	}
	v.remove("tty")
}

func execSpec(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

func testExec(t *testing.T, v *vm) {
	// One exec before the start: kubelet never does it, containerd's tests do.
	init := v.create("exec", spec("sleep", "1000"))
	early := v.exec("exec", "early", execSpec("echo", "early"))
	if got := early.wait(); got != 0 || early.stdout.String() != "early\n" {
		t.Errorf("exec before start: got %d %q %q", got, early.stdout.String(), early.err.String())
	}
	v.call(hyperstart.StartContainer, hyperstart.ContainerRef{Container: "exec"})
	start := time.Now()
	p := v.exec("exec", "e1", execSpec("sh", "-c", "cat; echo err >&2; exit 7"))
	t.Logf("exec %v", time.Since(start))
	p.send([]byte("input"))
	p.send(nil)
	if got := p.wait(); got != 7 || p.stdout.String() != "input" || p.err.String() != "err\n" {
		t.Errorf("got %d %q %q", got, p.stdout.String(), p.err.String())
	}
	term := execSpec("sh", "-c", "stty size; exit 3")
	term.Terminal = true
	for range 10 { // none of them is faster than its size
		p, req := v.streamsOf(true)
		req.ID, req.OCI, req.Rows, req.Columns = "e1", encode(t, term), 20, 50 // the id is free again
		v.call(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "exec", Process: req})
		if got := p.wait(); got != 3 || p.stdout.String() != "20 50\r\n" {
			t.Errorf("terminal: got %d %q", got, p.stdout.String())
		}
	}
	for i := range 5 { // ends before the agent knows its pid
		p = v.exec("exec", fmt.Sprint("quick", i), execSpec("true"))
		if got := p.wait(); got != 0 {
			t.Errorf("quick exec: got status %d", got)
		}
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "exec", Signal: 9, AllProcesses: true})
	if got := init.wait(); got != 137 {
		t.Errorf("got status %d, want 137", got)
	}
	v.remove("exec")
}

// testExitOrder checks that an init's exit follows those of its execs.
func testExitOrder(t *testing.T, v *vm) {
	init := v.run("order", spec("sleep", "1000"))
	var execs []*proc
	for i := range 3 {
		execs = append(execs, v.exec("order", fmt.Sprint("x", i), execSpec("sleep", "1000")))
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "order", Signal: 9})
	if got := init.wait(); got != 137 {
		t.Errorf("got status %d, want 137", got)
	}
	for i, p := range execs {
		if len(p.out.messages) != 2 {
			t.Errorf("exec %d: %d messages before the exit of init, want 2", i, len(p.out.messages))
			continue
		}
		if got := p.wait(); got != 137 {
			t.Errorf("exec %d: got status %d, want 137", i, got)
		}
	}
	v.remove("order")
}

// testGrandchild checks that descendants which keep stdout open do not delay the
// exit of an exec, which is told ahead, and that what they write is not lost.
// The id is free as soon as the exit was told.
func testGrandchild(t *testing.T, v *vm) {
	init := v.run("grand", spec("sleep", "1000"))
	told := func(status uint8) {
		t.Helper()
		select {
		case e := <-v.events:
			if e.Kind != hyperstart.EventExited || e.Container != "grand" || e.Process != "parent" || e.Status != status {
				t.Errorf("got event %+v", e)
			}
		case <-time.After(time.Minute):
			t.Fatal("the exit was not told")
		}
	}
	// The fifo makes the descendant wait for this test.
	first := v.exec("grand", "parent", execSpec("sh", "-c", "mkfifo /tmp/go; { cat /tmp/go; echo after; } & echo before; exit 5"))
	told(5)
	if got := v.exec("grand", "go", execSpec("sh", "-c", "echo now >/tmp/go")).wait(); got != 0 {
		t.Errorf("got status %d", got)
	}
	if got := first.wait(); got != 5 || first.stdout.String() != "before\nnow\nafter\n" {
		t.Errorf("got %d %q", got, first.stdout.String())
	}
	second := v.exec("grand", "parent", execSpec("sh", "-c", "sleep 1000 & exit 6"))
	told(6)
	for range 50 {
		if got := v.exec("grand", "parent", execSpec("sh", "-c", "exit 7")).wait(); got != 7 {
			t.Errorf("got status %d", got)
		}
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "grand", Signal: 9})
	init.wait()
	if got := second.wait(); got != 6 {
		t.Errorf("got status %d", got)
	}
	v.remove("grand")
}

// notPrograms are commands that cannot be run, with the status of a shell and
// what the error says beside their name.
var notPrograms = []struct {
	arg  string
	exit uint8
	want string
}{
	{"/bin/nope", 127, `exec: "/bin/nope": stat /bin/nope: no such file or directory`},
	{"nope", 127, `exec: "nope": executable file not found in $PATH`},
	{"/bin/noexec", 126, `exec: "/bin/noexec": permission denied`},
	{"noexec", 127, `exec: "noexec": executable file not found in $PATH`},
	{"/bin", 126, `exec: "/bin": is a directory`},
	{"/bin/sh/x", 126, `exec: "/bin/sh/x": stat /bin/sh/x: not a directory`},
}

// notExecuted are programs that the kernel does not execute, with what they leave on
// the standard error of a container that runs them.
var notExecuted = []struct{ arg, want string }{
	{"/bin/text", "exec /bin/text: exec format error\n"},
	{"text", "exec /bin/text: exec format error\n"},
	{"bin/text", "exec bin/text: exec format error\n"},
	{"/bin/script", "exec /bin/script: no such file or directory\n"},
	{"dos", "exec /bin/dos: no such file or directory\n"},
	{"foreign", "exec /bin/foreign: exec format error\n"},
}

// testNotExecuted wants such a process to have been, and to have told its user.
func testNotExecuted(t *testing.T, v *vm) {
	for _, tt := range notExecuted {
		p := v.run("refused", spec(tt.arg))
		if got := p.wait(); got != 255 || p.err.String() != tt.want || p.stdout.String() != "" {
			t.Errorf("run %s: status %d, %q, %q; want 255, %q", tt.arg, got, p.stdout.String(), p.err.String(), tt.want)
		}
		v.remove("refused")
	}
	init := v.run("refused", spec("sleep", "1000"))
	for _, tt := range notExecuted {
		p := v.exec("refused", "e", execSpec(tt.arg))
		if got := p.wait(); got != 255 || p.err.String() != tt.want || p.stdout.String() != "" {
			t.Errorf("exec %s: status %d, %q, %q; want 255, %q", tt.arg, got, p.stdout.String(), p.err.String(), tt.want)
		}
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "refused", Signal: 9})
	init.wait()
	v.remove("refused")
}

// testMissing checks the errors for programs that cannot be run, and that the
// id is free afterwards.
func testMissing(t *testing.T, v *vm) {
	for _, tt := range notPrograms {
		_, req := v.streamsOf(false)
		e := v.fail(hyperstart.NewContainer, request(t, "missing", spec(tt.arg), req))
		t.Logf("create %s: %v", tt.arg, e)
		if e.ExitStatus != tt.exit || !strings.Contains(e.Message, tt.arg) || !strings.Contains(e.Message, tt.want) {
			t.Errorf("create %s: got %+v, want exit status %d, the name and %q", tt.arg, e, tt.exit, tt.want)
		}
	}
	for _, file := range []string{"/run/ccv2/containers/missing/config.json", "/run/ccv2/oci/missing/status", "/sys/fs/cgroup/ccv2/missing/cgroup.procs"} {
		if e := v.fail(hyperstart.ReadFile, []byte(`{"file":"`+file+`"}`)); e.Class != hyperstart.ClassNotFound {
			t.Errorf("%s: %+v", file, e)
		}
	}
	init := v.run("missing", spec("sleep", "1000"))
	for _, tt := range notPrograms {
		p, req := v.streamsOf(false)
		_ = p
		req.ID = "e"
		req.OCI = encode(t, execSpec(tt.arg))
		e := v.fail(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "missing", Process: req})
		t.Logf("exec %s: %v", tt.arg, e)
		if e.ExitStatus != tt.exit || !strings.Contains(e.Message, tt.arg) || !strings.Contains(e.Message, tt.want) {
			t.Errorf("exec %s: got %+v, want exit status %d, the name and %q", tt.arg, e, tt.exit, tt.want)
		}
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "missing", Signal: 9})
	init.wait()
	v.remove("missing")
}
