//go:build e2e

package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// CCV2 runs the operator's tool and waits for its end.
func (h *Host) CCV2(tb testing.TB, args ...string) Result {
	tb.Helper()
	return h.CCV2Input(tb, nil, args...)
}

// CCV2Input is CCV2 with a stdin.
func (h *Host) CCV2Input(tb testing.TB, stdin io.Reader, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(h.Bin, "ccv2"), args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = h.Env(), stdin, &stdout, &stderr
	code := exitCode(tb, cmd.Run())
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: code}
}

// CCV2OK is CCV2 that must succeed; it returns what was written to stdout.
func (h *Host) CCV2OK(tb testing.TB, args ...string) string {
	tb.Helper()
	r := h.CCV2(tb, args...)
	if r.Code != 0 {
		tb.Fatalf("ccv2 %s: exit code %d: %s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// CCV2JSON is CCV2OK with --json; it decodes what was written.
func (h *Host) CCV2JSON(tb testing.TB, v any, args ...string) {
	tb.Helper()
	text := h.CCV2OK(tb, append(args, "--json")...)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		tb.Fatalf("ccv2 %s: %v: %s", strings.Join(args, " "), err, text)
	}
}

// CCV2TTY is CCV2 on a terminal of its own, as CtrTTY is.
func (h *Host) CCV2TTY(tb testing.TB, input string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(h.Bin, "ccv2"), args...)
	cmd.Env = h.Env()
	return onTerminal(tb, cmd, input)
}
