package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

func TestLife(t *testing.T) {
	f := newFixture(t)
	c := f.create(podID, "wait")
	if c.State() != sandbox.ContainerCreated || c.PID() == 0 || f.State() != sandbox.StateReady {
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
	if left := f.machine.Agent.Containers(); len(left) != 0 || f.Containers() != 0 {
		t.Errorf("left: %v in the guest, %d here", left, f.Containers())
	}
	if open := f.machine.Agent.Sessions(); open != 0 {
		t.Errorf("%d sessions are open", open)
	}
	if _, _, released := f.machine.FilesOf(podID).Exposed(); !released {
		t.Error("the files were not released")
	}
	want := []string{
		"created pod", "started pod", "added pod/e", "started pod/e", "exited pod/e 3", "exited pod 143", "deleted pod",
	}
	if diff := cmp.Diff(want, f.events.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// The id is free again, and so is the sandbox for it.
	f.wait(f.run(podID, "exit", "0"), "")
}

// lifeOfExec is that of an exec process.
func (f *fixture) lifeOfExec(c *sandbox.Container) {
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

// TestFastExit: the process has ended before the call that starts it returns,
// many times.
func TestFastExit(t *testing.T) {
	f := newFixture(t)
	pod := f.run(podID, "wait")
	for i := range 50 {
		c := f.run(fmt.Sprint("c", i), "exit", fmt.Sprint(i))
		if status := f.wait(c, ""); status != uint32(i) {
			t.Errorf("%s ended with %d", c.ID, status)
		}
		id := fmt.Sprint("e", i)
		f.exec(pod, id, "exit", fmt.Sprint(i))
		if err := pod.StartExec(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if status := f.wait(pod, id); status != uint32(i) {
			t.Errorf("%s ended with %d", id, status)
		}
	}
}

// TestKillBeforeStart: a created container exits, has no start event, and can
// be deleted.
func TestKillBeforeStart(t *testing.T) {
	for _, signal := range []int{9, 15} {
		f := newFixture(t)
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
		if diff := cmp.Diff(want, f.events.Events()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
}

// TestDeleteBeforeStart kills the container first.
func TestDeleteBeforeStart(t *testing.T) {
	f := newFixture(t)
	c := f.create("c", "wait")
	if exit, err := c.Delete(t.Context()); err != nil || exit.Status != sandbox.StatusKilled {
		t.Errorf("delete: %+v, %v", exit, err)
	}
	if left := f.machine.Agent.Containers(); len(left) != 0 {
		t.Errorf("the guest still has %v", left)
	}
}

func TestStartFails(t *testing.T) {
	f := newFixture(t)
	c := f.create("c", "missing")
	if err := c.Start(t.Context()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("start: %v", err)
	}
	if status := f.wait(c, ""); status != 127 {
		t.Errorf("ended with %d", status)
	}
	pod := f.run(podID, "wait")
	f.exec(pod, "e", "missing")
	if err := pod.StartExec(t.Context(), "e"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("start exec: %v", err)
	}
	if status := f.wait(pod, "e"); status != 127 {
		t.Errorf("exec ended with %d", status)
	}
	if _, err := pod.DeleteExec(t.Context(), "e"); err != nil {
		t.Error(err)
	}
	if exit, err := c.Delete(t.Context()); err != nil || exit.Status != 127 {
		t.Errorf("delete: %+v, %v", exit, err)
	}
	if events := f.events.Events(); slices.Contains(events, "started c") || slices.Contains(events, "started pod/e") {
		t.Errorf("events %q", events)
	}
}

// TestExecAfterExit: once the init process has ended no exec starts.
func TestExecAfterExit(t *testing.T) {
	f := newFixture(t)
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
	if status := f.wait(c, ""); status != sandbox.StatusKilled {
		t.Errorf("ended with %d", status)
	}
	if err := c.StartExec(t.Context(), "late"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start: %v", err)
	}
	if status := f.wait(c, "running"); status != sandbox.StatusKilled {
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
	f := newFixture(t)
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
	if events := f.events.Events(); events[len(events)-1] != "deleted c" {
		t.Errorf("events %q", events)
	}
}

// TestExposes: the root file system and the bind mounts reach the share, the
// guest's mounts reach the guest.
func TestExposes(t *testing.T) {
	f := newFixture(t)
	spec := &specs.Spec{
		Annotations: map[string]string{"io.kubernetes.cri.sandbox-uid": "uid"},
		Process:     &specs.Process{Args: []string{"wait"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/v", Type: "bind", Source: "/volume", Options: []string{"rbind", "ro"}},
			{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind"}},
		},
	}
	request := sandbox.CreateRequest{ID: "c", Bundle: f.bundleOf("c", spec), Rootfs: []mount.Mount{{Type: "bind", Source: "/snapshot"}}}
	if _, err := f.Create(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	rootfs, binds, released := f.machine.FilesOf("c").Exposed()
	want := []share.Bind{{Source: "/volume", Access: share.WriteBelow, Deep: true, Follow: true, Within: true, Pod: "uid"}}
	if rootfs != "mounts" || released || !cmp.Equal(want, binds) {
		t.Errorf("root file system %q, released %v, binds %s", rootfs, released, cmp.Diff(want, binds))
	}
}

// TestOutlived: the bundle says that others are left when the sandbox container
// is deleted.
func TestOutlived(t *testing.T) {
	for _, others := range []bool{false, true} {
		f := newFixture(t)
		pod := f.create(podID, "a")
		if others {
			f.create("other", "b")
		}
		if _, err := pod.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b, err := bundle.LoadNote(pod.Bundle); err != nil || b.Outlived != others {
			t.Errorf("others: %v, in the bundle: %v, %v", others, b.Outlived, err)
		}
	}
}

// TestWithoutSandboxContainer: a pod needs no pause container.
func TestWithoutSandboxContainer(t *testing.T) {
	f := newFixture(t)
	if err := f.EnsureReady(t.Context(), bundle.Pod{Hostname: "h"}); err != nil {
		t.Fatal(err)
	}
	if f.machine.Pod().Hostname != "h" {
		t.Errorf("booted for %+v", f.machine.Pod())
	}
	c := f.run("c", "wait")
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.machine.Paused() {
		t.Error("the VM was paused with one container")
	}
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), "", 9, true); err != nil {
		t.Fatal(err)
	}
	f.wait(c, "")
	if _, err := c.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkIsRefreshedBeforeTheFirstStart, with and without a sandbox
// container, and not before others: a change that the guest cannot have
// must not keep the containers of a pod that runs from starting.
func TestNetworkIsRefreshedBeforeTheFirstStart(t *testing.T) {
	for _, id := range []string{podID, "a"} {
		f := newFixture(t)
		broken := true
		f.machine.OnStep = func(_ context.Context, step string) error {
			if broken && step == "refresh network" {
				return errdefs.ErrUnavailable
			}
			return nil
		}
		if err := f.create("first", "wait").Start(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("start: %v", err)
		}
		broken = false
		f.run(id, "wait")
		broken = true
		f.run("later", "wait")
	}
}
