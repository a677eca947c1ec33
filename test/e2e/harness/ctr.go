//go:build e2e

package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/console"
)

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Ctr runs ctr and waits for its end.
func (c *Containerd) Ctr(tb testing.TB, args ...string) Result {
	tb.Helper()
	return c.CtrInput(tb, nil, args...)
}

// CtrInput is Ctr with a stdin.
func (c *Containerd) CtrInput(tb testing.TB, stdin io.Reader, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience) // clean-up runs commands too
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := c.ctrCommand(ctx, args)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	code := exitCode(tb, cmd.Run())
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: code}
}

// CtrOK is Ctr that must succeed; it returns what was written to stdout.
func (c *Containerd) CtrOK(tb testing.TB, args ...string) string {
	tb.Helper()
	r := c.Ctr(tb, args...)
	if r.Code != 0 {
		tb.Fatalf("ctr %s: exit code %d: %s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// CtrTTY runs ctr on a terminal of its own; what the terminal shows is Stdout.
// input is typed as soon as the command reads it.
func (c *Containerd) CtrTTY(tb testing.TB, input string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience) // clean-up runs commands too
	defer cancel()
	return onTerminal(tb, c.ctrCommand(ctx, args), input)
}

// onTerminal runs a command on a terminal of its own.
func onTerminal(tb testing.TB, cmd *exec.Cmd, input string) Result {
	tb.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = master.Close() }()
	slave, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(master, input); err != nil {
		tb.Fatal(err)
	}
	shown := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		_, _ = io.Copy(&b, master) // a terminal ends with EIO
		shown <- b.String()
	}()
	code := exitCode(tb, cmd.Wait())
	_ = slave.Close() // the last writer, so that the reader ends
	return Result{Stdout: <-shown, Code: code}
}

func (c *Containerd) ctrCommand(ctx context.Context, args []string) *exec.Cmd {
	var full []string
	switch { // the directory of fifos is checked, so it must be ours
	case len(args) > 0 && args[0] == "run":
		full = append([]string{"run", "--runtime", Runtime, "--fifo-dir", c.FIFODir()}, append(c.cgroupFlag(), args[1:]...)...)
	case len(args) > 1 && (args[0] == "task" || args[0] == "t") && args[1] == "exec":
		full = append([]string{"task", "exec", "--fifo-dir", c.FIFODir()}, args[2:]...)
	default:
		full = args
	}
	full = append([]string{"-a", c.socketPath(), "-n", c.Namespace}, full...)
	cmd := exec.CommandContext(ctx, filepath.Join(c.release.Dir, "ctr"), full...)
	// What the daemon thinks of this host is not the command's output.
	cmd.Env = append(c.Env(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1")
	return cmd
}

func exitCode(tb testing.TB, err error) int {
	tb.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	tb.Fatal(err)
	return 0
}
