//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// operated is what ccv2 ps --json says of a sandbox.
type operated struct {
	ID         string
	State      string
	VM         struct{ CPUs, MemoryMiB int }
	PSS        int64 `json:"pss_bytes"`
	Processes  []struct{ Name, State string }
	Containers []struct{ ID, State string }
	Problems   []string
}

// ps is what ccv2 ps says of one sandbox.
func ps(t *testing.T, id string) operated {
	t.Helper()
	var all []operated
	shared.CCV2JSON(t, &all, "ps")
	i := slices.IndexFunc(all, func(o operated) bool { return o.ID == id })
	if i < 0 {
		t.Fatalf("ccv2 ps does not list %s: %+v", id, all)
	}
	return all[i]
}

// TestOperate looks at a pod that lives in every way that there is.
func TestOperate(t *testing.T) {
	shared.Watch(t)
	begin := time.Now()
	task := shared.Running(t, "operate", harness.Streams{}, []string{"sleep", "1000"})
	t.Run("ps", operatePs)
	t.Run("info", func(t *testing.T) { operateInfo(t, begin) })
	t.Run("events", func(t *testing.T) { operateEvents(t, task) })
	t.Run("stats", operateStats)
	t.Run("dump", operateDump)
	t.Run("gc", operateGc)
	t.Run("trace", func(t *testing.T) { operateTrace(t, task) })
	if before := shared.CCV2OK(t, "log-level", "operate", "debug"); before != "info\n" {
		t.Errorf("the level was %q", before)
	}
	shared.CCV2OK(t, "log-level", "operate", "info")
	for _, args := range [][]string{{"trace", "no-such"}, {"log-level", "no-such"}, {"info", "no-such"}, {"console", "no-such"}, {"kill", "no-such"}, {"stats", "no-such"}, {"dump", "no-such"}, {"events", "no-such"}} {
		if r := shared.CCV2(t, args...); r.Code != 3 || !strings.Contains(r.Stderr, "ccv2 ps lists") {
			t.Errorf("%q: exit code %d: %s", args, r.Code, r.Stderr)
		}
	}
	if status := shared.KillTask(t, task); status != 137 {
		t.Errorf("status %d", status)
	}
}

func operatePs(t *testing.T) {
	o := ps(t, "operate")
	if o.State != "ready" || len(o.Problems) > 0 || len(o.Containers) != 1 || o.Containers[0].State != "running" || len(o.Processes) != 3 {
		t.Errorf("got %+v", o)
	}
	if o.PSS < 20<<20 || o.PSS > 1<<30 {
		t.Errorf("%d bytes of memory", o.PSS)
	}
	t.Logf("\n%s", shared.CCV2OK(t, "ps"))
}

func operateInfo(t *testing.T, begin time.Time) {
	t.Helper()
	text := shared.CCV2OK(t, "info", "operate")
	t.Logf("\n%s", text)
	for _, want := range []string{"wait for guest", "agent ", "share", "running", "virtiofsd"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	var info struct {
		Info struct {
			Config struct{ ShareType string }
			Guest  struct{ Kernel string }
			Phases []struct {
				Name        string
				Nanoseconds int64
			}
		}
		Record struct{ Cgroup string }
	}
	shared.CCV2JSON(t, &info, "info", "oper")
	if info.Info.Config.ShareType != "virtiofs" || info.Info.Guest.Kernel == "" || len(info.Info.Phases) != 14 || info.Record.Cgroup == "" {
		t.Errorf("got %+v", info)
	}
	for _, p := range info.Info.Phases {
		if p.Nanoseconds < 0 || p.Nanoseconds > time.Since(begin).Nanoseconds() {
			t.Errorf("phase %+v", p)
		}
	}
}

func operateEvents(t *testing.T, task client.Task) {
	t.Helper()
	shared.Output(t, task, "some-exec", "true")
	var kinds []string
	for line := range strings.Lines(shared.CCV2OK(t, "events", "operate", "--json")) {
		var e struct{ Kind string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Kind)
	}
	want := []string{"plug", "ready", "create", "start", "exec", "exec-start", "exit"}
	if !slices.Equal(kinds, want) {
		t.Errorf("got %q, want %q", kinds, want)
	}
	if text := shared.CCV2OK(t, "events", "operate", "--since", "2100-01-01T00:00:00Z"); text != "" {
		t.Errorf("events of the future: %s", text)
	}
	t.Logf("\n%s", shared.CCV2OK(t, "events", "operate"))
}

func operateStats(t *testing.T) {
	text := shared.CCV2OK(t, "stats", "operate")
	t.Logf("\n%s", text)
	if !strings.Contains(text, "qemu") || !strings.Contains(text, "guest:") || strings.Contains(text, "problem") {
		t.Error("something is missing")
	}
}

func operateDump(t *testing.T) {
	text := shared.CCV2OK(t, "dump", "operate")
	for _, want := range []string{"sandbox.(*Process).awaitExit", "guest/agent.Run(", `"status": "running"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the dump does not say %q", want)
		}
	}
}

// operateTrace sees an exec pass, without its arguments, in a file that decode reads.
func operateTrace(t *testing.T, task client.Task) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.pcap")
	cmd := exec.Command(filepath.Join(shared.Bin, "ccv2"), "trace", "operate", "--write", file, "--grep", "EXECCMD", "--count", "1")
	cmd.Env = shared.Env()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for i := 0; ; i++ { // until one passes that it sees
		shared.Output(t, task, fmt.Sprintf("traced-%d", i), "echo", "SECRET")
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		break
	}
	text := shared.CCV2OK(t, "decode", file)
	if !strings.Contains(text, `"args":["echo","… (1 more)"]`) || strings.Contains(text, "SECRET") || strings.Count(text, "\n") != 1 {
		t.Errorf("got %s", text)
	}
	t.Log(text)
}

func operateGc(t *testing.T) {
	if text := shared.CCV2OK(t, "gc"); !strings.Contains(text, "nothing") {
		t.Errorf("it finds what a shim has that lives: %s", text)
	}
}

// TestOperateExec runs programs in the VM, outside of the container.
func TestOperateExec(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "operate-exec", harness.Streams{}, []string{"sleep", "1000"})
	for _, tt := range []struct {
		name   string
		stdin  string
		args   []string
		status int
		stdout string
		stderr string
	}{
		{"of the guest", "", []string{"operate-exec", "/usr/bin/crun", "--version"}, 0, "crun version", ""},
		{"of the host", "input", []string{"--copy", shared.Busybox, "operate-exec", "busybox", "sh", "-c", "cat; echo err >&2; exit 7"}, 7, "input", "err"},
		{"again", "", []string{"operate-exec", "/run/ccv2/tools/" + filepath.Base(shared.Busybox), "sh", "-c", "kill -9 $$"}, 137, "", ""},
		{"outside", "", []string{"operate-exec", "/run/ccv2/tools/" + filepath.Base(shared.Busybox), "cat", "/proc/self/cgroup", "/proc/1/comm"}, 0, "0::/\ninit\n", ""},
		{"missing", "", []string{"operate-exec", "no-such-program"}, 1, "", "there is no program no-such-program in the guest"},
	} {
		r := shared.CCV2Input(t, strings.NewReader(tt.stdin), append([]string{"exec"}, tt.args...)...)
		if r.Code != tt.status || !strings.Contains(r.Stdout, tt.stdout) || !strings.Contains(r.Stderr, tt.stderr) {
			t.Errorf("%s: status %d, %q, %q", tt.name, r.Code, r.Stdout, r.Stderr)
		}
	}
	busybox := "/run/ccv2/tools/" + filepath.Base(shared.Busybox)
	r := shared.CCV2TTY(t, "echo typed-$((40+2)); tty; exit 5\n", "exec", "-t", "operate-exec", busybox, "sh")
	if r.Code != 5 || !strings.Contains(r.Stdout, "typed-42") || !strings.Contains(r.Stdout, "/dev/pts/") {
		t.Errorf("on a terminal: status %d, %q", r.Code, r.Stdout)
	}
	wantEndOfClient(t)
	if text := shared.CCV2OK(t, "dump", "--tasks", "operate-exec"); !strings.Contains(text, "task:init") || !strings.Contains(text, "task:sleep") {
		t.Errorf("the dump has no tasks of the guest's kernel: %s", text)
	}
	if status := shared.KillTask(t, task); status != 137 {
		t.Errorf("status %d", status)
	}
}

// TestActivity: one grep has what the shim and the guest's agent say of the same exec, of one that works and of one
// that does not.
func TestActivity(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "activity", harness.Streams{}, []string{"sleep", "1000"})
	shared.CCV2OK(t, "log-level", "activity", "debug")
	for _, tt := range []struct {
		program string
		want    []string // lines of the same activity
	}{
		{"true", []string{`msg="guest command"`, "msg=call "}},
		{"/no/such/program", []string{`msg="guest command failed"`, `msg="call failed"`}},
	} {
		since := shared.LogSince()
		p, err := shared.AddExec(task, "exec-"+filepath.Base(tt.program), harness.Streams{}, &specs.Process{Args: []string{tt.program}, Cwd: "/"})
		if err != nil {
			t.Fatal(err)
		}
		ended, err := p.Wait(t.Context())
		if err == nil && p.Start(t.Context()) == nil { // one of them cannot
			<-ended
		}
		if _, deleteErr := p.Delete(t.Context()); err != nil || deleteErr != nil {
			t.Fatal(err, deleteErr)
		}
		harness.Until(t, "log of "+tt.program, func() bool {
			byActivity := make(map[string]string)
			for _, line := range since() {
				if _, rest, ok := strings.Cut(line, " activity="); ok {
					id, _, _ := strings.Cut(rest, " ")
					byActivity[id] += line + "\n"
				}
			}
			for _, text := range byActivity {
				if strings.Contains(text, tt.want[0]) && strings.Contains(text, tt.want[1]) && strings.Contains(text, "EXECCMD") && strings.Contains(text, "op=StartExec") {
					t.Logf("\n%s", text)
					return true
				}
			}
			return false
		})
	}
	shared.KillTask(t, task)
}

// wantEndOfClient kills a client of a program in the VM, which is to end the program.
func wantEndOfClient(t *testing.T) {
	t.Helper()
	busybox := "/run/ccv2/tools/" + filepath.Base(shared.Busybox)
	cmd := exec.Command(filepath.Join(shared.Bin, "ccv2"), "exec", "operate-exec", busybox, "sleep", "4321")
	cmd.Env = shared.Env()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	runs := func() bool {
		return strings.Contains(shared.CCV2OK(t, "exec", "operate-exec", busybox, "ps"), "sleep 4321")
	}
	harness.Until(t, "program in the VM", runs)
	_ = cmd.Process.Kill() // it waits for the program
	_ = cmd.Wait()
	harness.Until(t, "end of the program", func() bool { return !runs() })
}

// TestOperateHung looks at a pod of which one process stands still: every command answers,
// and names it.
func TestOperateHung(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "hung", harness.Streams{}, []string{"sleep", "1000"})
	for _, tt := range []struct {
		role  harness.Role
		name  string
		state string
		code  int // of commands that ask the shim
	}{
		{harness.QEMU, "qemu", "ready", 0},
		{harness.VirtioFSD, "virtiofsd", "ready", 0},
		{harness.Shim, "shim", "hung", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := shared.AwaitProcess(t, tt.role, "hung")
			if tt.role == harness.VirtioFSD { // the child serves
				harness.Until(t, "the child of virtiofsd", func() bool { return len(shared.Find(tt.role, "hung")) > 1 })
				p = shared.Find(tt.role, "hung")[1]
			}
			p.Signal(t, unix.SIGSTOP)
			defer p.Signal(t, unix.SIGCONT)
			o := ps(t, "hung")
			if o.State != tt.state || !strings.Contains(strings.Join(o.Problems, "\n"), tt.name) {
				t.Errorf("ps: %+v", o)
			}
			t.Logf("problems: %q", o.Problems)
			for _, args := range [][]string{{"info", "hung"}, {"events", "hung"}, {"console", "hung"}, {"dump", "hung"}, {"log-level", "hung"}} {
				if r := shared.CCV2(t, args...); r.Code != tt.code {
					t.Errorf("%q: exit code %d: %s%s", args, r.Code, r.Stdout, r.Stderr)
				}
			}
			if tt.role == harness.QEMU { // and by itself, within half a minute
				harness.Until(t, "notice that qemu does not answer", func() bool {
					return strings.Contains(shared.CCV2OK(t, "events", "hung"), "the vmm does not answer") &&
						strings.Contains(strings.Join(ps(t, "hung").Problems, " "), "the vmm does not answer")
				})
			}
			if r := shared.CCV2(t, "stats", "hung"); r.Code != 0 || !strings.Contains(r.Stdout, tt.name) {
				t.Errorf("stats: exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
	shared.KillTask(t, task)
}

// TestOperateEnd ends pods in order, at once, and by force when their shim does not answer.
func TestOperateEnd(t *testing.T) {
	shared.Watch(t)
	for _, tt := range []struct {
		name   string
		args   []string
		stop   bool // the shim
		status uint32
	}{
		{"shutdown", []string{"shutdown", "ended-shutdown"}, false, 7},
		{"kill", []string{"kill", "ended-kill"}, false, 255},
		{"force", []string{"kill", "--force", "ended-force"}, true, 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := "ended-" + tt.name
			events := shared.Record(t)
			var out harness.Buffer
			shared.Running(t, id, harness.Streams{Stdout: &out}, []string{"sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"})
			harness.Until(t, "trap", func() bool { return out.String() != "" })
			if tt.stop {
				shared.AwaitProcess(t, harness.Shim, id).Signal(t, unix.SIGSTOP)
			}
			t.Log(shared.CCV2OK(t, tt.args...))
			if left := shared.Find(harness.QEMU, id); len(left) > 0 {
				t.Errorf("%s is still there", left)
			}
			if e := events.Await(t, "exit", id, ""); e.Status != tt.status {
				t.Errorf("%s, want status %d", e, tt.status)
			}
		})
	}
}
