//go:build e2e

package e2e_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// life is the container of [TestLifecycle].
const life = "life"

// TestLifecycle leads one detached container through what an operator does
// with ctr, in one VM.
func TestLifecycle(t *testing.T) {
	shared.Watch(t)
	start := func() {
		shared.CtrOK(t, "run", "--detach", harness.ImageName, life,
			"/bin/sh", "-c", `trap "exit 3" TERM; for s in `+caught+`; do trap "echo $s >>/got" $s; done; sleep 3600 & while :; do wait; done`)
	}
	start()
	t.Cleanup(func() { // whatever failed before
		shared.Ctr(t, "task", "rm", "--force", life)
		shared.CtrOK(t, "containers", "rm", life)
	})
	wantStatus(t, "RUNNING")

	t.Run("Exec", func(t *testing.T) { lifecycleExec(t) })
	t.Run("ExecTTY", func(t *testing.T) { lifecycleExecTTY(t) })
	t.Run("PS", func(t *testing.T) {
		lines := strings.Split(strings.TrimSpace(shared.CtrOK(t, "task", "ps", life)), "\n")
		if len(lines) != 1+2 { // a heading, the shell, its sleep
			t.Errorf("ps: %q, want two processes", lines)
		}
	})
	t.Run("Metrics", func(t *testing.T) {
		out := shared.CtrOK(t, "task", "metrics", life)
		for _, name := range []string{"memory.usage", "cpu.usage_usec", "pids.current"} {
			if !regexp.MustCompile(regexp.QuoteMeta(name) + `\s+[1-9]`).MatchString(out) {
				t.Errorf("metrics: no %s above 0 in:\n%s", name, out)
			}
		}
	})
	t.Run("PauseResume", func(t *testing.T) {
		shared.CtrOK(t, "task", "pause", life)
		wantStatus(t, "PAUSED")
		shared.CtrOK(t, "task", "resume", life)
		wantStatus(t, "RUNNING")
		if out := shared.CtrOK(t, "task", "exec", "--exec-id", "awake", life, "echo", "awake"); out != "awake\n" {
			t.Errorf("exec after resume: %q", out)
		}
	})
	t.Run("EverySignal", func(t *testing.T) { lifecycleSignals(t) })
	t.Run("KillTERM", func(t *testing.T) {
		shared.CtrOK(t, "task", "kill", "--signal", "SIGTERM", life)
		wantStatus(t, "STOPPED")
		wantRemoved(t, "3")
	})
	t.Run("StartAgainKillKILL", func(t *testing.T) {
		shared.CtrOK(t, "task", "start", "--fifo-dir", shared.FIFODir(), "--detach", life)
		shared.CtrOK(t, "task", "kill", "--signal", "SIGKILL", life)
		wantStatus(t, "STOPPED")
		wantRemoved(t, "137")
	})
}

// wantStatus waits until ctr lists a task with a status.
func wantStatus(t *testing.T, status string) {
	t.Helper()
	harness.Until(t, "task "+life+" "+status, func() bool {
		for line := range strings.Lines(shared.CtrOK(t, "task", "ls")) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == life && f[2] == status {
				return true
			}
		}
		return false
	})
}

// wantRemoved removes a task that has ended with a status, which ctr tells in a
// warning.
func wantRemoved(t *testing.T, status string) {
	t.Helper()
	if got := shared.Ctr(t, "task", "rm", life); !strings.Contains(got.Stderr, "non-zero exit code "+status) {
		t.Errorf("task rm: %+v, want exit code %s", got, status)
	}
}

// caught are the signals that the container's init process catches.
const caught = "1 2 3 10 12 28 29 30 31 34 50 64"

// lifecycleSignals delivers each to the process: SIGWINCH (28) too is a signal
// of the client's here, not a change of a terminal's size.
func lifecycleSignals(t *testing.T) {
	for signal := range strings.FieldsSeq(caught) {
		shared.CtrOK(t, "task", "kill", "--signal", signal, life)
		harness.Until(t, "signal "+signal, func() bool {
			got := shared.Ctr(t, "task", "exec", "--exec-id", "got"+signal, life, "cat", "/got").Stdout
			return strings.HasSuffix("\n"+got, "\n"+signal+"\n")
		})
	}
}

func lifecycleExec(t *testing.T) {
	tests := []struct {
		name  string
		stdin string
		args  []string
		want  harness.Result
	}{
		{name: "output", args: []string{"sh", "-c", "echo out; echo err >&2"}, want: harness.Result{Stdout: "out\n", Stderr: "err\n"}},
		{name: "code1", args: []string{"false"}, want: harness.Result{Code: 1}},
		{name: "code42", args: []string{"sh", "-c", "exit 42"}, want: harness.Result{Code: 42}},
		{name: "code137", args: []string{"sh", "-c", "kill -9 $$"}, want: harness.Result{Code: 137}},
		{name: "stdin", stdin: "ping\n", args: []string{"cat"}, want: harness.Result{Stdout: "ping\n"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"task", "exec", "--exec-id", test.name, life}, test.args...)
			if got := shared.CtrInput(t, strings.NewReader(test.stdin), args...); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		got := shared.Ctr(t, "task", "exec", "--exec-id", "missing", life, "no-such-program")
		if got.Code == 0 || !strings.Contains(got.Stderr, "no-such-program") {
			t.Errorf("got %+v, want an error that names the program", got)
		}
	})
}

func lifecycleExecTTY(t *testing.T) {
	got := shared.CtrTTY(t, "echo in $((20+3)); exit 5\n", "task", "exec", "--tty", "--exec-id", "tty", life, "/bin/sh", "-c", "tty; exec sh")
	if got.Code != 5 {
		t.Errorf("exit code %d, want 5", got.Code)
	}
	for _, want := range []string{"/dev/pts/", "in 23"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("no %q on the terminal: %q", want, got.Stdout)
		}
	}
}

// TestRunTTY is `ctr run --rm --tty`.
func TestRunTTY(t *testing.T) {
	shared.Watch(t)
	got := shared.CtrTTY(t, "echo in $((20+3)); exit 5\n", "run", "--rm", "--tty", harness.ImageName, "run-tty", "/bin/sh")
	if got.Code != 5 || !strings.Contains(got.Stdout, "in 23") {
		t.Errorf("got %+v, want exit code 5 and the shell's answer", got)
	}
}
