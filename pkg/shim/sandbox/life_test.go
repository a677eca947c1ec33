package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// dialects are those whose agent the tests imitate.
var dialects = []hyperstart.Dialect{hyperstart.DialectCCv2, hyperstart.DialectClearGo}

func TestLife(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect.String(), func(t *testing.T) {
			f := newFixture(t, dialect)
			c := f.create(podID, "wait")
			if c.State() != ContainerCreated || c.PID() == 0 || f.State() != StateReady {
				t.Errorf("container %s, pid %d, sandbox %s", c.State(), c.PID(), f.State())
			}
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
				t.Errorf("second start: %v", err)
			}
			if _, err := c.Delete(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
				t.Errorf("delete of a running container: %v", err)
			}
			if _, err := f.tryCreate(podID, "wait"); !errors.Is(err, errdefs.ErrAlreadyExists) {
				t.Errorf("second create: %v", err)
			}
			f.lifeOfExec(c)
			if err := c.Kill(t.Context(), "", 15, false); err != nil {
				t.Fatal(err)
			}
			if status := f.wait(c, ""); status != 143 {
				t.Errorf("ended with %d", status)
			}
			if err := c.Kill(t.Context(), "", 9, true); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("kill after the end: %v", err)
			}
			recorded, err := bundle.LoadExit(c.Bundle)
			if err != nil || recorded.Status != 143 || recorded.PID != c.PID() {
				t.Errorf("on disk: %+v, %v", recorded, err)
			}
			if exit, err := c.Delete(t.Context()); err != nil || exit.Status != 143 {
				t.Errorf("delete: %+v, %v", exit, err)
			}
			if left := f.agent.left(); len(left) != 0 || f.Containers() != 0 {
				t.Errorf("left: %v in the guest, %d here", left, f.Containers())
			}
			want := []string{
				"created pod", "started pod", "added pod/e", "started pod/e", "exited pod/e 3", "exited pod 143", "deleted pod",
			}
			if diff := cmp.Diff(want, f.events.list()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			// The id is free again, and so is the sandbox for it.
			f.run(podID, "exit", "0")
		})
	}
}

// lifeOfExec is that of an exec process.
func (f *fixture) lifeOfExec(c *Container) {
	f.t.Helper()
	f.exec(c, "e", "exit", "3")
	if err := c.Exec("e", stdio.Config{}, []byte(`{"args":["x"]}`)); !errors.Is(err, errdefs.ErrAlreadyExists) {
		f.t.Errorf("second exec: %v", err)
	}
	if err := c.StartExec(f.t.Context(), "e"); err != nil {
		f.t.Fatal(err)
	}
	if status := f.wait(c, "e"); status != 3 {
		f.t.Errorf("exec ended with %d", status)
	}
	if exit, err := c.DeleteExec(f.t.Context(), "e"); err != nil || exit.Status != 3 || exit.At.IsZero() {
		f.t.Errorf("delete exec: %+v, %v", exit, err)
	}
	if _, err := c.Process("e"); !errors.Is(err, errdefs.ErrNotFound) {
		f.t.Errorf("exec after its deletion: %v", err)
	}
}

// TestFastExit: the process has ended before the command that starts it is
// answered, many times.
func TestFastExit(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect.String(), func(t *testing.T) {
			f := newFixture(t, dialect)
			pod := f.run(podID, "wait")
			for i := range 20 {
				c := f.run(fmt.Sprint("c", i), "fast", fmt.Sprint(i))
				if status := f.wait(c, ""); status != uint32(i) {
					t.Errorf("%s ended with %d", c.ID, status)
				}
				id := fmt.Sprint("e", i)
				f.exec(pod, id, "fast", fmt.Sprint(i))
				if err := pod.StartExec(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				if status := f.wait(pod, id); status != uint32(i) {
					t.Errorf("%s ended with %d", id, status)
				}
			}
			check(t, f.events.list(), false)
		})
	}
}

// TestKillBeforeStart: a created container exits, has no start event, and can
// be deleted.
func TestKillBeforeStart(t *testing.T) {
	for _, dialect := range dialects {
		for _, signal := range []int{9, 15} {
			t.Run(fmt.Sprint(dialect, signal), func(t *testing.T) {
				f := newFixture(t, dialect)
				c := f.create("c", "wait")
				if err := c.Kill(t.Context(), "", signal, false); err != nil {
					t.Fatal(err)
				}
				if status := f.wait(c, ""); status != uint32(128+signal) {
					t.Errorf("ended with %d", status)
				}
				if err := c.Start(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
					t.Errorf("start: %v", err)
				}
				if _, err := c.Delete(t.Context()); err != nil {
					t.Error(err)
				}
				want := []string{"created c", fmt.Sprint("exited c ", 128+signal), "deleted c"}
				if diff := cmp.Diff(want, f.events.list()); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		}
		t.Run(dialect.String()+" delete", func(t *testing.T) {
			f := newFixture(t, dialect)
			c := f.create("c", "wait")
			if exit, err := c.Delete(t.Context()); err != nil || exit.Status != statusKilled {
				t.Errorf("delete: %+v, %v", exit, err)
			}
			if left := f.agent.left(); len(left) != 0 {
				t.Errorf("the guest still has %v", left)
			}
		})
	}
}

// TestOtherSignalBeforeStart: an original guest cannot take it.
func TestOtherSignalBeforeStart(t *testing.T) {
	f := newFixture(t, hyperstart.DialectClearGo)
	c := f.create("c", "wait")
	if err := c.Kill(t.Context(), "", 10, false); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("kill: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect.String(), func(t *testing.T) {
			f := newFixture(t, dialect)
			c := f.create("c", "missing")
			err := c.Start(t.Context())
			if dialect == hyperstart.DialectCCv2 && !errors.Is(err, errdefs.ErrNotFound) || err == nil {
				t.Errorf("start: %v", err)
			}
			want := uint32(127)
			if dialect != hyperstart.DialectCCv2 {
				want = statusUnknown // the original agent says no more than ERROR
			}
			if status := f.wait(c, ""); status != want {
				t.Errorf("ended with %d", status)
			}
			pod := f.run(podID, "wait")
			f.exec(pod, "e", "missing")
			if err := pod.StartExec(t.Context(), "e"); err == nil {
				t.Error("a missing binary was started")
			}
			if status := f.wait(pod, "e"); status != want {
				t.Errorf("exec ended with %d", status)
			}
			if _, err := pod.DeleteExec(t.Context(), "e"); err != nil {
				t.Error(err)
			}
			if exit, err := c.Delete(t.Context()); err != nil || exit.Status != want {
				t.Errorf("delete: %+v, %v", exit, err)
			}
			if events := f.events.list(); slices.Contains(events, "started c") || slices.Contains(events, "started pod/e") {
				t.Errorf("events %q", events)
			}
		})
	}
}

// TestExecAfterExit: once the first process has ended no exec starts.
func TestExecAfterExit(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	c := f.run("c", "wait")
	f.exec(c, "running", "wait")
	f.exec(c, "late", "exit", "0")
	f.exec(c, "never", "exit", "0")
	if err := c.StartExec(t.Context(), "running"); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), "", 9, true); err != nil {
		t.Fatal(err)
	}
	if status := f.wait(c, ""); status != statusKilled {
		t.Errorf("ended with %d", status)
	}
	if err := c.StartExec(t.Context(), "late"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start: %v", err)
	}
	if status := f.wait(c, "running"); status != statusKilled {
		t.Errorf("exec ended with %d", status)
	}
	if _, err := c.DeleteExec(t.Context(), "late"); err != nil {
		t.Error(err)
	}
	never, err := c.Process("never")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := never.Wait(t.Context()); err != nil { // nobody waits indefinitely
		t.Error(err)
	}
}

// TestDeleteTwiceAtOnce: both get the same answer, and there is one event.
func TestDeleteTwiceAtOnce(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	c := f.run("c", "exit", "5")
	f.wait(c, "")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if exit, err := c.Delete(t.Context()); err != nil || exit.Status != 5 {
				t.Errorf("delete: %+v, %v", exit, err)
			}
		})
	}
	wg.Wait()
	if events := f.events.list(); events[len(events)-1] != "deleted c" {
		t.Errorf("events %q", events)
	}
}

// TestRootfsIsMountedAndGivenBack: what containerd hands over reaches the
// share, and nothing of it is deleted.
func TestRootfsIsMountedAndGivenBack(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	snapshot := filepath.Join(f.dir, "snapshot")
	if err := os.MkdirAll(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(snapshot, "file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	request := CreateRequest{
		ID: "c", Bundle: f.bundle("c", "wait"),
		Rootfs: []mount.Mount{{Type: "bind", Source: snapshot, Options: []string{"rbind", "rw"}}},
	}
	c, err := f.Create(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(f.record().Shared(), "c", "rootfs", "file")
	if b, err := os.ReadFile(shared); err != nil || string(b) != "data" {
		t.Errorf("in the share: %q, %v", b, err)
	}
	if _, err := c.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(shared); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still in the share: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(snapshot, "file")); err != nil || string(b) != "data" {
		t.Errorf("in the snapshot: %q, %v", b, err)
	}
}
