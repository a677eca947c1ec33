//go:build e2e

package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Streams are the stdio of a process, each nil for none.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// closer asks for the end of the process's stdin when its reader has ended:
// the end of a fifo's writer alone means that a client has detached.
type closer struct {
	io.Reader
	atEnd func()
}

func (c *closer) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		c.atEnd()
	}
	return n, err
}

// Buffer is a writer that can be looked at while it is written to.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Container makes a container of the test image that runs args. The test
// removes it, with its task, at its end.
func (c *Containerd) Container(tb testing.TB, id string, args []string, opts ...oci.SpecOpts) client.Container {
	tb.Helper()
	return c.ContainerOn(tb, Runtime, id, args, opts...)
}

// ContainerOn is Container with another runtime.
func (c *Containerd) ContainerOn(tb testing.TB, runtime, id string, args []string, opts ...oci.SpecOpts) client.Container {
	tb.Helper()
	ctx := c.Context()
	image, err := c.Client.GetImage(ctx, ImageName)
	if err != nil {
		tb.Fatal(err)
	}
	opts = append([]oci.SpecOpts{oci.WithImageConfigArgs(image, args)}, opts...)
	container, err := c.Client.NewContainer(ctx, id,
		client.WithNewSnapshot(id, image), client.WithNewSpec(opts...), client.WithRuntime(runtime, nil))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Remove(tb, id) })
	return container
}

// Remove removes a container and its task. It asks for both by name, because
// containerd may have been restarted.
func (c *Containerd) Remove(tb testing.TB, id string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), Patience)
	defer cancel()
	container, err := c.Client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return
	}
	if err != nil {
		tb.Errorf("remove container %s: %v", id, err)
		return
	}
	if task, err := container.Task(ctx, nil); err == nil {
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			tb.Errorf("remove task %s: %v", id, err)
		}
	}
	if err := container.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		tb.Errorf("remove container %s: %v", id, err)
	}
}

// Task creates a container's task, which does not run yet.
func (c *Containerd) Task(tb testing.TB, container client.Container, s Streams) client.Task {
	tb.Helper()
	task, err := c.NewTask(tb, container, s)
	if err != nil {
		tb.Fatal(err)
	}
	return task
}

// NewTask is Task for those who expect an error.
func (c *Containerd) NewTask(tb testing.TB, container client.Container, s Streams, opts ...client.NewTaskOpts) (client.Task, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*Patience)
	defer cancel()
	task, err := container.NewTask(ctx, c.creator(s), opts...)
	if err == nil {
		tb.Cleanup(func() { // a task that is deleted by another client keeps its fifos
			task.IO().Cancel()
			_ = task.IO().Close() // closed already, most of the time
		})
	}
	return task, err
}

func (c *Containerd) creator(s Streams) cio.Creator {
	return cio.NewCreator(cio.WithStreams(s.Stdin, s.Stdout, s.Stderr), cio.WithFIFODir(c.FIFODir()))
}

// Running makes a container and starts it.
func (c *Containerd) Running(tb testing.TB, id string, s Streams, args []string, opts ...oci.SpecOpts) client.Task {
	tb.Helper()
	return c.RunningOn(tb, Runtime, id, s, args, opts...)
}

// RunningOn is Running with another runtime.
func (c *Containerd) RunningOn(tb testing.TB, runtime, id string, s Streams, args []string, opts ...oci.SpecOpts) client.Task {
	tb.Helper()
	task := c.Task(tb, c.ContainerOn(tb, runtime, id, args, opts...), s)
	if err := task.Start(c.Context()); err != nil {
		tb.Fatal(err)
	}
	return task
}

// Exec starts an additional process of a task.
func (c *Containerd) Exec(tb testing.TB, task client.Task, id string, s Streams, args ...string) client.Process {
	tb.Helper()
	ctx := c.Context()
	spec, err := task.Spec(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	process := *spec.Process
	process.Args, process.Terminal = args, false
	added := make(chan client.Process, 1)
	if s.Stdin != nil {
		s.Stdin = &closer{Reader: s.Stdin, atEnd: func() {
			if p := <-added; p != nil {
				_ = p.CloseIO(ctx, client.WithStdinCloser) // the process may have ended
			}
		}}
	}
	p, err := task.Exec(ctx, id, &process, c.creator(s))
	added <- p
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.Start(ctx); err != nil {
		_, deleteErr := p.Delete(ctx)
		tb.Fatal(errors.Join(err, deleteErr))
	}
	return p
}

// AddExec adds a process to a task, which does not run yet.
func (c *Containerd) AddExec(task client.Task, id string, s Streams, process *specs.Process) (client.Process, error) {
	opts := []cio.Opt{cio.WithStreams(s.Stdin, s.Stdout, s.Stderr), cio.WithFIFODir(c.FIFODir())}
	if process.Terminal {
		opts = append(opts, cio.WithTerminal)
	}
	return task.Exec(c.Context(), id, process, cio.NewCreator(opts...))
}

// Output runs an additional process to its end and returns what it wrote to
// stdout and its exit status.
func (c *Containerd) Output(tb testing.TB, task client.Task, id string, args ...string) (string, uint32) {
	tb.Helper()
	var out Buffer
	p := c.Exec(tb, task, id, Streams{Stdout: &out, Stderr: os.Stderr}, args...)
	status := c.Finish(tb, p)
	return out.String(), status
}

// Finish waits for the end of a process, deletes it and returns its status.
// What it wrote has arrived.
func (c *Containerd) Finish(tb testing.TB, p client.Process) uint32 {
	tb.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*Patience)
	defer cancel()
	exited, err := p.Wait(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	waited := <-exited
	if err := waited.Error(); err != nil {
		tb.Fatalf("wait for %s: %v", p.ID(), err)
	}
	p.IO().Wait() // Delete would close the client's end of the fifos, full or not
	deleted, err := p.Delete(ctx)
	if err != nil {
		tb.Fatalf("delete %s: %v", p.ID(), err)
	}
	if deleted.ExitCode() != waited.ExitCode() {
		tb.Errorf("%s: Wait says %d, Delete says %d", p.ID(), waited.ExitCode(), deleted.ExitCode())
	}
	return waited.ExitCode()
}

// KillTask ends a task with SIGKILL, deletes it and returns its status.
func (c *Containerd) KillTask(tb testing.TB, task client.Task) uint32 {
	tb.Helper()
	if err := task.Kill(c.Context(), unix.SIGKILL); err != nil {
		tb.Fatal(err)
	}
	return c.Finish(tb, task)
}
