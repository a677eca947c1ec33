//go:build e2e

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// guestClock is a process in a guest that says what time it is when it is asked.
type guestClock struct {
	ask    io.Writer
	answer *bufio.Reader
}

// tell is a script that does that without another process.
const tell = `while read _; do echo $EPOCHREALTIME; done`

// newClock returns a clock, and the streams of its process.
func newClock(t *testing.T) (*guestClock, harness.Streams) {
	t.Helper()
	in, ask := io.Pipe()
	answer, out := io.Pipe()
	t.Cleanup(func() { _ = ask.Close() })
	return &guestClock{ask: ask, answer: bufio.NewReader(answer)}, harness.Streams{Stdin: in, Stdout: out, Stderr: os.Stderr}
}

// bracket asks once: the guest is ahead of the host by between low and high.
func (c *guestClock) bracket(t *testing.T) (low, high time.Duration) {
	t.Helper()
	before := time.Now()
	if _, err := io.WriteString(c.ask, "\n"); err != nil {
		t.Fatal(err)
	}
	line, err := c.answer.ReadString('\n')
	after := time.Now()
	if err != nil {
		t.Fatal(err)
	}
	var seconds, micros int64
	if _, err := fmt.Sscanf(line, "%d.%d", &seconds, &micros); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	guest := time.Unix(seconds, micros*1000)
	return guest.Sub(after.Round(0)), guest.Sub(before.Round(0))
}

// wantRight asks several times. What one question takes bounds how well the time of
// the guest can be known, and how well it could be set: that took questions, too.
func (c *guestClock) wantRight(t *testing.T, when string) {
	t.Helper()
	const questions = 20
	low, high, width := time.Duration(math.MinInt64), time.Duration(math.MaxInt64), time.Duration(0)
	for range questions {
		l, h := c.bracket(t)
		low, high, width = max(low, l), min(high, h), max(width, h-l)
	}
	t.Logf("%s: ahead by %v to %v, the longest question took %v", when, low, high, width)
	if low > width || high < -width {
		t.Errorf("%s: the guest's clock is ahead by between %v and %v", when, low, high)
	}
}

// pass waits until some time has passed on the host.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	begin := time.Now()
	harness.Until(t, d.String(), func() bool { return time.Since(begin) >= d })
}

// TestClock: the guest has the host's time from the first process on, and again
// after each time that its VM was paused.
func TestClock(t *testing.T) {
	shared.Watch(t)
	clock, streams := newClock(t)
	task := shared.Running(t, "clock", streams, []string{"sh", "-c", tell})
	clock.wantRight(t, "after the start")
	for range 2 {
		if err := task.Pause(shared.Context()); err != nil {
			t.Fatal(err)
		}
		pass(t, 3*time.Second)
		if err := task.Resume(shared.Context()); err != nil {
			t.Fatal(err)
		}
		clock.wantRight(t, "after a pause")
	}
	shared.KillTask(t, task)
}

// TestClockThatIsWrong: who may set the guest's clock does not keep it wrong.
func TestClockThatIsWrong(t *testing.T) {
	shared.Watch(t)
	clock, streams := newClock(t)
	task := shared.Running(t, "wrong", streams, []string{"sh", "-c", tell}, oci.WithPrivileged)
	for i, offset := range []time.Duration{-time.Hour, time.Hour} {
		set := strconv.FormatInt(time.Now().Add(offset).Unix(), 10)
		if out, status := shared.Output(t, task, fmt.Sprint("set", i), "date", "-s", "@"+set); status != 0 {
			t.Fatalf("date: status %d: %s", status, out)
		}
		if low, high := clock.bracket(t); low < 0 == (high > 0) {
			t.Errorf("the clock was set to %v, and is ahead by %v to %v", offset, low, high)
		}
		if err := task.Pause(shared.Context()); err != nil {
			t.Fatal(err)
		}
		if err := task.Resume(shared.Context()); err != nil {
			t.Fatal(err)
		}
		clock.wantRight(t, "an hour off")
	}
	shared.KillTask(t, task)
}

// TestTimesOfFiles: what is written on the share has the host's time, whatever the
// guest's clock says, and both sides see the same.
func TestTimesOfFiles(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	task := shared.Running(t, "times", harness.Streams{}, []string{"sleep", "1000"}, oci.WithPrivileged,
		oci.WithMounts([]specs.Mount{bind(dir, "/files")}))
	for i, before := range []string{
		"true", // the guest's clock is right
		"date -s @1000000000",
	} {
		begin := time.Now()
		name := fmt.Sprint("guest", i)
		out, status := shared.Output(t, task, name, "sh", "-c", before+" >/dev/null; echo x > /files/"+name+"; touch /files/touched-"+name+
			"; stat -c %Y /files/"+name+" /files/touched-"+name)
		if status != 0 {
			t.Fatalf("status %d", status)
		}
		end := time.Now()
		for j, line := range strings.Fields(out) {
			info, err := os.Stat(filepath.Join(dir, []string{name, "touched-" + name}[j]))
			if err != nil {
				t.Fatal(err)
			}
			// The kernel's time of a file is that of its last tick.
			const tick = 10 * time.Millisecond
			if at := info.ModTime(); at.Before(begin.Add(-tick)) || at.After(end) {
				t.Errorf("%s, %s: %v, which is not between %v and %v", before, info.Name(), at, begin, end)
			}
			if want := strconv.FormatInt(info.ModTime().Unix(), 10); line != want {
				t.Errorf("%s, %s: the guest says %s, the host %s", before, info.Name(), line, want)
			}
		}
		host := filepath.Join(dir, fmt.Sprint("host", i))
		if err := os.WriteFile(host, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(host)
		if err != nil {
			t.Fatal(err)
		}
		out, _ = shared.Output(t, task, fmt.Sprint("look", i), "stat", "-c", "%Y", "/files/"+filepath.Base(host))
		if want := fmt.Sprintf("%d\n", info.ModTime().Unix()); out != want {
			t.Errorf("a file of the host: the guest says %q, the host %q", out, want)
		}
	}
	shared.KillTask(t, task)
}
