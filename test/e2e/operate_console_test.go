//go:build e2e

package e2e_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// attached is a ccv2 console --attach on a terminal of its own.
type attached struct {
	terminal console.Console
	shown    harness.Buffer
	ended    chan error
}

func attach(t *testing.T, id string) *attached {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := &attached{terminal: master, ended: make(chan error, 1)}
	cmd := exec.Command(filepath.Join(shared.Bin, "ccv2"), "console", "--attach", id)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = shared.Env(), slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&a.shown, master) }() // ends with the terminal
	go func() {
		err := cmd.Wait()
		_ = slave.Close()
		a.ended <- err
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("terminal: %q", a.shown.String())
		}
		_ = cmd.Process.Kill() // it has ended, unless the test has failed
		_ = master.Close()
	})
	return a
}

// see waits until something is shown.
func (a *attached) see(t *testing.T, want string) {
	t.Helper()
	harness.Until(t, "on the terminal: "+want, func() bool { return strings.Contains(a.shown.String(), want) })
}

func (a *attached) enter(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(a.terminal, text); err != nil {
		t.Fatal(err)
	}
}

// TestOperateConsole: where the configuration lets an operator type on the console a shell answers, one operator at a time; the guest's
// control characters do not arrive.
func TestOperateConsole(t *testing.T) {
	shared.Watch(t)
	image := harness.WithShell(t, filepath.Join(t.TempDir(), "initrd.img"), shared.Image, shared.Busybox)
	shared.Configure(t, func(s *harness.Settings) { s.TypeConsole, s.Image, s.NoTemplates = true, image, true })
	task := shared.Running(t, "typed", harness.Streams{}, []string{"sleep", "1000"})
	a := attach(t, "typed")
	a.see(t, "Ctrl-] detaches")
	a.enter(t, "\necho answer-$((40+2)) $$; printf 'a\\033[31mb\\007c\\n'\n")
	a.see(t, "answer-42")
	a.see(t, "abc\r\n")
	if r := shared.CCV2TTY(t, "", "console", "--attach", "typed"); r.Code != 1 || !strings.Contains(r.Stdout, "is attached; --follow watches") {
		t.Errorf("a second one: exit code %d: %s", r.Code, r.Stdout)
	}
	before := len(a.shown.String())
	a.enter(t, "exit\n") // another shell comes
	harness.Until(t, "another shell", func() bool { return strings.Contains(a.shown.String()[before:], "Enter 'help'") })
	a.enter(t, "echo again-$((1+1))\n")
	a.see(t, "again-2")
	a.enter(t, "while :; do echo busy; done\n\x1d") // with messages on their way
	a.see(t, "detached")
	if err := <-a.ended; err != nil {
		t.Error(err)
	}
	if strings.ContainsAny(a.shown.String(), "\x1b\x07") {
		t.Errorf("control characters: %q", a.shown.String())
	}
	text := shared.CCV2OK(t, "console", "typed")
	if !strings.Contains(text, "answer-42") {
		t.Errorf("history: %s", text)
	}
	if text := shared.CCV2OK(t, "events", "typed"); !strings.Contains(text, "console-attach") || !strings.Contains(text, "console-detach") {
		t.Errorf("events: %s", text)
	}
	operateConsoleHung(t)
	b := attach(t, "typed") // its end is that of the sandbox
	b.see(t, "Ctrl-] detaches")
	shared.KillTask(t, task)
	b.see(t, "detached")
	if err := <-b.ended; err != nil {
		t.Error(err)
	}
}

// operateConsoleHung: what is typed for a VM that stands still is bounded, and a shim that does is found.
func operateConsoleHung(t *testing.T) {
	t.Helper()
	qemu := shared.AwaitProcess(t, harness.QEMU, "typed")
	a := attach(t, "typed")
	a.see(t, "Ctrl-] detaches")
	qemu.Signal(t, unix.SIGSTOP)
	line := strings.Repeat("x", 1000) + "\r"
	harness.Until(t, "end of what QEMU takes", func() bool {
		a.enter(t, line)
		return strings.Contains(a.shown.String(), "does not read what was typed")
	})
	qemu.Signal(t, unix.SIGCONT)
	if err := <-a.ended; err == nil {
		t.Error("it ends without an error")
	}
	shim := shared.AwaitProcess(t, harness.Shim, "typed")
	shim.Signal(t, unix.SIGSTOP)
	defer shim.Signal(t, unix.SIGCONT)
	if r := shared.CCV2TTY(t, "", "console", "--attach", "typed"); r.Code != 5 || !strings.Contains(r.Stdout, "stopped by a signal") {
		t.Errorf("shim: exit code %d: %s", r.Code, r.Stdout)
	}
}

// TestOperateConsoleRefused: without the key of the configuration nobody types; the error names it.
func TestOperateConsoleRefused(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "untyped", harness.Streams{}, []string{"sleep", "1000"})
	if r := shared.CCV2TTY(t, "", "console", "--attach", "untyped"); r.Code != 1 || !strings.Contains(r.Stdout, "console_input = true in [guest]") {
		t.Errorf("exit code %d: %s", r.Code, r.Stdout)
	}
	if r := shared.CCV2(t, "console", "--attach", "untyped"); r.Code != 2 || !strings.Contains(r.Stderr, "is no terminal") {
		t.Errorf("without a terminal: exit code %d: %s", r.Code, r.Stderr)
	}
	if r := shared.CCV2TTY(t, "", "console", "--attach", "no-such"); r.Code != 3 {
		t.Errorf("no pod: exit code %d: %s", r.Code, r.Stdout)
	}
	shared.KillTask(t, task)
}
