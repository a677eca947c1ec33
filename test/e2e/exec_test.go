//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestExec runs processes in one container through containerd's client, which
// sees more than ctr shows.
func TestExec(t *testing.T) {
	shared.Watch(t)
	events := shared.Record(t)
	// Its pid namespace is the guest's, so that /proc there shows every process
	// of the guest, the agent's helpers included.
	task := shared.Running(t, "exec", harness.Streams{}, []string{"sleep", "3600"}, oci.WithHostNamespace(specs.PIDNamespace))

	t.Run("MissingBinary", func(t *testing.T) { execMissing(t, task) })
	t.Run("Events", func(t *testing.T) {
		if _, status := shared.Output(t, task, "events", "sh", "-c", "exit 7"); status != 7 {
			t.Errorf("exit status %d, want 7", status)
		}
		events.Await(t, "exit", "exec", "events")
		var got []string
		for _, e := range events.Of("exec") {
			if e.Process == "events" {
				got = append(got, e.String())
			}
		}
		want := []string{"exec-added exec/events 0", "exec-started exec/events 0", "exit exec/events 7"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
	t.Run("Background", func(t *testing.T) { execBackground(t, task) })
	t.Run("AtOnce", func(t *testing.T) { execAtOnce(t, task) })
	t.Run("Hundred", func(t *testing.T) { execHundred(t, task) })
	if status := shared.KillTask(t, task); status != 137 {
		t.Errorf("exit status %d, want 137", status)
	}
	if e := events.Await(t, "exit", "exec", ""); e.Status != 137 {
		t.Errorf("exit event %s, want status 137", e)
	}
}

// execMissing wants an error that names the program, and the status that a
// shell reports.
func execMissing(t *testing.T, task client.Task) {
	ctx := shared.Context()
	p, err := task.Exec(ctx, "missing", &specs.Process{Args: []string{"no-such-program"}, Cwd: "/", Env: []string{"PATH=/bin"}}, cio.NullIO)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(ctx); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("start: %v, want an error that names the program", err)
	}
	if status := shared.Finish(t, p); status != 127 {
		t.Errorf("exit status %d, want 127", status)
	}
}

// execBackground wants the exit of a process although its child keeps stdout
// open, and what that child writes afterwards.
func execBackground(t *testing.T, task client.Task) {
	var out harness.Buffer
	p := shared.Exec(t, task, "parent", harness.Streams{Stdout: &out, Stderr: os.Stderr},
		"sh", "-c", "mkfifo /tmp/go; { cat /tmp/go; echo after; } & echo before; exit 3")
	exited, err := p.Wait(shared.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-exited
	if _, status := shared.Output(t, task, "go", "sh", "-c", "echo now >/tmp/go"); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if status := shared.Finish(t, p); status != 3 || out.String() != "before\nnow\nafter\n" {
		t.Errorf("exit status %d, output %q; want 3, and what the child wrote", status, out.String())
	}
}

// footprint is what a shim and its guest hold.
type footprint struct {
	FDs        int
	Goroutines int
	FIFOs      int
	Guest      int // processes in the guest

	stacks string
}

func takeFootprint(t *testing.T, task client.Task, probe string) footprint {
	t.Helper()
	shim := shared.AwaitProcess(t, harness.Shim, task.ID())
	out, status := shared.Output(t, task, probe, "sh", "-c", "ls -d /proc/[0-9]* | wc -l")
	if status != 0 {
		t.Fatalf("count processes in the guest: exit status %d", status)
	}
	var f footprint
	if _, err := fmt.Sscan(out, &f.Guest); err != nil {
		t.Fatalf("count processes in the guest: %q: %v", out, err)
	}
	fds := shim.FDs(t)
	f.FDs = len(fds)
	f.FIFOs = len(slices.DeleteFunc(fds, func(target string) bool { return !strings.HasPrefix(target, shared.FIFODir()) }))
	f.Goroutines, f.stacks = shared.Goroutines(t, shim)
	return f
}

// execHundred wants a hundred processes to leave nothing. What the first ones
// make and keep, such as workers of the guest's kernel, is there before.
func execHundred(t *testing.T, task client.Task) {
	run := func(from, to int) {
		for i := from; i < to; i++ {
			if out, status := shared.Output(t, task, fmt.Sprintf("x%d", i), "echo", "hello"); out != "hello\n" || status != 0 {
				t.Fatalf("exec %d: output %q, exit status %d", i, out, status)
			}
		}
	}
	run(0, 5)
	before := takeFootprint(t, task, "before")
	run(5, 105)
	var after footprint
	probes := 0
	harness.Until(t, "return to the footprint before", func() bool {
		probes++
		after = takeFootprint(t, task, fmt.Sprintf("after%d", probes))
		// The kernel of the guest starts and ends workers as it likes.
		const workers = 3
		return after.FDs <= before.FDs && after.Goroutines <= before.Goroutines &&
			after.FIFOs <= before.FIFOs && after.Guest <= before.Guest+workers
	})
	t.Logf("before: %d descriptors, %d goroutines, %d guest processes; after: %d, %d, %d",
		before.FDs, before.Goroutines, before.Guest, after.FDs, after.Goroutines, after.Guest)
}

// execAtOnce wants more processes to start at once than the guest takes commands.
func execAtOnce(t *testing.T, task client.Task) {
	ctx := shared.Context()
	spec, err := task.Spec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := *spec.Process
	process.Args = []string{"true"}
	const many = 200
	var all sync.WaitGroup
	for i := range many {
		p, err := task.Exec(ctx, fmt.Sprintf("one-of-many-%d", i), &process, cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if err := p.Start(ctx); err != nil {
				t.Error(err)
			}
		})
		defer shared.Finish(t, p)
	}
	all.Wait()
}
