//go:build e2e

package e2e_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// besideRunc runs a test with ccv2, and with runc where that was built: a client
// must find no difference.
func besideRunc(t *testing.T, test func(t *testing.T, runtime, id string)) {
	shared.Watch(t)
	id := strings.ToLower(t.Name())
	t.Run("ccv2", func(t *testing.T) { test(t, harness.Runtime, id) })
	t.Run("runc", func(t *testing.T) {
		for _, name := range []string{harness.RuncShim, "runc"} {
			if _, err := os.Stat(filepath.Join(shared.Bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		test(t, harness.Runc, id+"-runc")
	})
}

// direct are the fifos of a process in the hands of the test.
type direct struct{ *cio.DirectIO }

func (d *direct) create(id string) (cio.IO, error) {
	if err := os.MkdirAll(shared.FIFODir(), 0o700); err != nil {
		return nil, err
	}
	fifos, err := cio.NewFIFOSetInDir(shared.FIFODir(), id, false)
	if err != nil {
		return nil, err
	}
	d.DirectIO, err = cio.NewDirectIO(shared.Context(), fifos)
	return d.DirectIO, err
}

// TestStdinReattach: a client writes a line to cat and closes its end of the
// fifo, another does the same, and CloseIO is the end.
func TestStdinReattach(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		var init, exec direct
		ctx := shared.Context()
		task, err := shared.ContainerOn(t, runtime, id, []string{"cat"}).NewTask(ctx, init.create)
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Start(ctx); err != nil {
			t.Fatal(err)
		}
		spec, err := task.Spec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p, err := task.Exec(ctx, "cat", spec.Process, exec.create)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Run("exec", func(t *testing.T) { reattach(t, p, exec) })
		t.Run("init", func(t *testing.T) { reattach(t, task, init) })
	})
}

// reattach is two clients of cat and the end of its input.
func reattach(t *testing.T, p client.Process, d direct) {
	var out harness.Buffer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(&out, d.Stdout)
	}()
	go func() { _, _ = io.Copy(io.Discard, d.Stderr) }()
	if _, err := io.WriteString(d.Stdin, "one\n"); err != nil {
		t.Fatal(err)
	}
	if err := d.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the first line", func() bool { return out.String() == "one\n" })
	second, err := os.OpenFile(d.Config().Stdin, os.O_RDWR, 0) // does not wait when nobody reads
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(second, "two\n"); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the second line", func() bool { return out.String() == "one\ntwo\n" })
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.CloseIO(shared.Context(), client.WithStdinCloser); err != nil {
		t.Fatal(err)
	}
	<-ended
	if status := shared.Finish(t, p); status != 0 || out.String() != "one\ntwo\n" {
		t.Errorf("exit status %d, output %q", status, out.String())
	}
}

// TestRunPiped is `echo hello | ctr run`, whose input has ended before there is a
// task: ctr ends the stdin of those that it knows only.
func TestRunPiped(t *testing.T) {
	shared.Watch(t)
	want := harness.Result{Stdout: "hello\n"}
	got := shared.CtrInput(t, strings.NewReader("hello\n"), "run", "--rm", harness.ImageName, "piped", "cat")
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
