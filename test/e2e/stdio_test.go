//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestStdio moves data through processes of one container.
func TestStdio(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "stdio", harness.Streams{}, []string{"sleep", "3600"})
	t.Run("EmptyStdin", func(t *testing.T) {
		for i := range 10 { // the end of stdin comes before or after the start
			p := shared.Exec(t, task, fmt.Sprintf("empty%d", i), harness.Streams{Stdin: strings.NewReader("")}, "cat")
			if status := shared.Finish(t, p); status != 0 {
				t.Errorf("exit status %d", status)
			}
		}
	})
	const size = 20 << 20
	t.Run("RoundTrip20MiB", func(t *testing.T) {
		roundTrip(t, task, "fast", size, nil)
	})
	t.Run("RoundTrip20MiBSlowReader", func(t *testing.T) {
		ticker := time.NewTicker(2 * time.Millisecond) // 16 MiB/s, below what the guest can send
		defer ticker.Stop()
		roundTrip(t, task, "slow", size, ticker.C)
	})
	t.Run("FastExit8MiB", func(t *testing.T) { fastExit(t, task) })
	t.Run("StoppedReader", func(t *testing.T) { stoppedReader(t, task) })
	t.Run("OrphanHoldsStdout", func(t *testing.T) { orphan(t, task) })
	shared.KillTask(t, task)
}

// comparer is a writer that compares what it gets with what a reader has, and
// takes its time when it has a pace.
type comparer struct {
	want io.Reader
	pace <-chan time.Time
	n    int64
	diff string // the first difference
	buf  []byte
}

func (c *comparer) Write(p []byte) (int, error) {
	if c.pace != nil {
		<-c.pace
	}
	if cap(c.buf) < len(p) {
		c.buf = make([]byte, len(p))
	}
	n, err := io.ReadFull(c.want, c.buf[:len(p)])
	switch {
	case c.diff != "":
	case err != nil:
		c.diff = fmt.Sprintf("more than the expected %d bytes arrived", c.n+int64(n))
	default:
		for i := range p {
			if p[i] != c.buf[i] {
				c.diff = fmt.Sprintf("another byte than expected at offset %d", c.n+int64(i))
				break
			}
		}
	}
	c.n += int64(len(p))
	return len(p), nil
}

// check wants all bytes to have arrived as they should.
func (c *comparer) check(t *testing.T, size int64) {
	t.Helper()
	if c.n != size || c.diff != "" {
		t.Errorf("%d bytes of %d arrived; %s", c.n, size, c.diff)
	}
}

// random are size bytes, the same ones each time.
func random(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{}), size)
}

// roundTrip sends data through cat.
func roundTrip(t *testing.T, task client.Task, id string, size int64, pace <-chan time.Time) {
	t.Helper()
	got := &comparer{want: random(size), pace: pace}
	p := shared.Exec(t, task, id, harness.Streams{Stdin: random(size), Stdout: got}, "cat")
	if status := shared.Finish(t, p); status != 0 {
		t.Errorf("exit status %d", status)
	}
	got.check(t, size)
}

// fastExit runs a process that writes 8 MiB and ends at once.
func fastExit(t *testing.T, task client.Task) {
	const lines = 1_200_000
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i+1)
	}
	if want.Len() < 8<<20 {
		t.Fatalf("only %d bytes", want.Len())
	}
	got := &comparer{want: strings.NewReader(want.String())}
	p := shared.Exec(t, task, "burst", harness.Streams{Stdout: got}, "seq", fmt.Sprint(lines))
	if status := shared.Finish(t, p); status != 0 {
		t.Errorf("exit status %d", status)
	}
	got.check(t, int64(want.Len()))
}

// stopped is a writer that takes nothing more after the first bytes, until it
// is released.
type stopped struct {
	once    sync.Once
	started chan struct{}
	release chan struct{}
}

func (s *stopped) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.started) })
	<-s.release
	return len(p), nil
}

// stoppedReader wants a process whose output is not read to stall nothing but
// itself.
func stoppedReader(t *testing.T, task client.Task) {
	reader := &stopped{started: make(chan struct{}), release: make(chan struct{})}
	flood := shared.Exec(t, task, "flood", harness.Streams{Stdout: reader}, "yes")
	<-reader.started
	for i := range 3 { // the first of them may still find room in some queue
		if out, status := shared.Output(t, task, fmt.Sprintf("beside%d", i), "seq", "100000"); status != 0 || len(out) != 588895 {
			t.Errorf("second process: %d bytes, exit status %d", len(out), status)
		}
		if s, err := task.Status(shared.Context()); err != nil || s.Status != client.Running {
			t.Errorf("state: %v, %v", s, err)
		}
	}
	if err := flood.Kill(shared.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	close(reader.release)
	if status := shared.Finish(t, flood); status != 137 {
		t.Errorf("exit status %d, want 137", status)
	}
}

// orphan wants the exit of a process whose child holds its stdout, and the end
// of the stream with Delete.
func orphan(t *testing.T, task client.Task) {
	var out harness.Buffer
	p := shared.Exec(t, task, "parent", harness.Streams{Stdout: &out, Stderr: os.Stderr}, "sh", "-c", "sleep 3600 & echo started; exit 4")
	ctx, cancel := context.WithTimeout(shared.Context(), 2*harness.Patience)
	defer cancel()
	exited, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-exited
	status, err := p.Delete(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "started\n" || status.ExitCode() != 4 {
		t.Errorf("output %q, exit status %d", out.String(), status.ExitCode())
	}
}
