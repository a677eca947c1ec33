//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// tty are the streams of a process with a terminal.
func tty(out *harness.Buffer) cio.Creator {
	return cio.NewCreator(cio.WithStreams(strings.NewReader(""), out, nil), cio.WithTerminal, cio.WithFIFODir(shared.FIFODir()))
}

// TestResize sets sizes before the start, as nerdctl does, and after the end. What
// is refused must be what runc's shim refuses; it forgets sizes before the start.
func TestResize(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		ctx := shared.Context()
		var out harness.Buffer
		const script = "stty size; read line; exit 3"
		container := shared.ContainerOn(t, runtime, id, []string{"sh", "-c", script}, oci.WithTTY, oci.WithTTYSize(80, 24))
		task, err := container.NewTask(ctx, tty(&out))
		if err != nil {
			t.Fatal(err)
		}
		resize(t, "created", task, true)
		if err := task.Start(ctx); err != nil {
			t.Fatal(err)
		}
		wantSize(t, &out, "41 101")
		resizeExecs(t, task, runtime == harness.Runtime)
		if status := killed(t, task); status != 137 {
			t.Errorf("exit status %d", status)
		}
		resize(t, "exited", task, true)
		if _, err := task.Delete(ctx); err != nil {
			t.Error(err)
		}
	})
}

// resizeExecs does it with execs, one of them without a terminal.
func resizeExecs(t *testing.T, task client.Task, heeded bool) {
	t.Helper()
	ctx := shared.Context()
	for _, terminal := range []bool{true, false} {
		var out harness.Buffer
		streams, process := tty(&out), &specs.Process{
			Args: []string{"sh", "-c", "stty size; exec sleep 1000"}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: terminal,
		}
		if !terminal {
			streams = cio.NullIO
		}
		p, err := task.Exec(ctx, fmt.Sprintf("terminal-%t", terminal), process, streams)
		if err != nil {
			t.Fatal(err)
		}
		resize(t, "created exec", p, true)
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if terminal && heeded {
			wantSize(t, &out, "41 101")
		}
		resize(t, "running exec", p, true)
		if status := killed(t, p); status != 137 {
			t.Errorf("exit status %d", status)
		}
		resize(t, "exited exec", p, false)
		if _, err := p.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
}

// resize sets the size and wants that to be accepted or not.
func resize(t *testing.T, what string, p client.Process, accepted bool) {
	t.Helper()
	if err := p.Resize(shared.Context(), 101, 41); (err == nil) != accepted {
		t.Errorf("%s: %v", what, err)
	}
}

// wantSize wants what stty writes.
func wantSize(t *testing.T, out *harness.Buffer, size string) {
	t.Helper()
	harness.Until(t, "size of the terminal", func() bool { return strings.Contains(out.String(), "\n") })
	if got := strings.TrimSpace(out.String()); got != size {
		t.Errorf("the terminal is %q, want %q", got, size)
	}
}

// killed ends a process, does not delete it, and returns its status.
func killed(t *testing.T, p client.Process) uint32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(shared.Context(), 2*harness.Patience)
	defer cancel()
	exited, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(ctx, 9); err != nil {
		t.Fatal(err)
	}
	return (<-exited).ExitCode()
}
