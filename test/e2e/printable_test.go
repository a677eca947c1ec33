//go:build e2e

package e2e_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestErrorsArePrintable names programs that a terminal would obey: clients show
// the error, in which the guest's runtime quotes the name.
func TestErrorsArePrintable(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		ctx := shared.Context()
		task, err := shared.ContainerOn(t, runtime, id, []string{"sleep", "1000"}).NewTask(ctx, cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Start(ctx); err != nil {
			t.Fatal(err)
		}
		process := &specs.Process{Args: []string{"no\x1b[31m\nsuch\x07" + strings.Repeat("g", 200)}, Cwd: "/", Env: []string{"PATH=/bin"}}
		p, err := task.Exec(ctx, "rude", process, cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		if err = p.Start(ctx); err == nil {
			t.Fatal("it was started")
		}
		wantPrintable(t, errgrpc.ToNative(err).Error())
		if _, err := p.Delete(ctx); err != nil {
			t.Error(err)
		}
		shared.KillTask(t, task)
	})
}

// wantPrintable wants one line that a terminal obeys nothing of.
func wantPrintable(t *testing.T, text string) {
	t.Helper()
	text = strings.TrimSuffix(text, "\n") // of the client's own
	t.Logf("%q", text)
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Error("the error is not printable")
	}
	if limit := 20 << 10; len(text) > limit {
		t.Errorf("the error has %d bytes, at most %d are sensible", len(text), limit)
	}
}

// rudeError wants the reason of a guest that refuses a container to reach the
// client and the log without what it does to a terminal.
func rudeError(t *testing.T, h *hostile) {
	begin := len(shared.Log())
	got := shared.Ctr(t, "run", "--rm", harness.ImageName, h.id, "true")
	wantFailure(t, got, []string{"guest: NEWCONTAINER: ", "rude"})
	wantPrintable(t, got.Stderr)
	for line := range strings.Lines(shared.Log()[begin:]) {
		if strings.ContainsAny(line, "\x1b\x07") || len(line) > 20<<10 {
			t.Errorf("the log has %d bytes: %.300q", len(line), line)
		}
	}
	h.wantBounded(t)
}
