package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestVMLost in each phase of a container: everybody who waits gets an answer,
// what was announced exits with a status that is not 0, and everything is
// given back.
func TestVMLost(t *testing.T) {
	for _, tt := range []struct {
		phase  string
		ignore hyperstart.Code // the command during which the VM goes
		exits  []string
	}{
		{phase: "created", exits: []string{"exited c 255"}},
		{phase: "running", exits: []string{"exited c 255"}},
		{phase: "paused", exits: []string{"exited c 255"}},
		{phase: "exec running", exits: []string{"exited c/e 255", "exited c 255"}},
		{phase: "creating", ignore: hyperstart.NewContainer},
		{phase: "starting", ignore: hyperstart.StartContainer},
		{phase: "pausing", ignore: hyperstart.PauseContainer, exits: []string{"exited c 255"}},
		{phase: "exec starting", ignore: hyperstart.ExecCmd, exits: []string{"exited c 255"}},
		{phase: "killing", ignore: hyperstart.KillContainer, exits: []string{"exited c 255"}},
	} {
		t.Run(tt.phase, func(t *testing.T) {
			f := newFixture(t, hyperstart.DialectCCv2)
			if tt.ignore != 0 {
				f.agent.ignore[tt.ignore] = true
				f.agent.noted = func(code hyperstart.Code) {
					if code == tt.ignore {
						f.driver.machine().die()
					}
				}
			}
			c, err := f.tryCreate("c", "wait")
			if tt.phase == "creating" {
				if err == nil {
					t.Error("created")
				}
				<-f.end.released
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.proceed(c, tt.phase)
			if tt.ignore == 0 {
				f.driver.machine().die()
			}
			if status := f.wait(c, ""); status == 0 {
				t.Error("ended with 0")
			}
			<-f.end.released
			if err := c.Kill(t.Context(), "", 9, true); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("kill: %v", err)
			}
			if _, err := f.tryCreate("late", "wait"); !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("create: %v", err)
			}
			if exit, err := c.Delete(t.Context()); err != nil || exit.Status == 0 {
				t.Errorf("delete: %+v, %v", exit, err)
			}
			exits := f.exits()
			if !slices.Equal(exits, tt.exits) {
				t.Errorf("exits %q, want %q", exits, tt.exits)
			}
		})
	}
}

// exits returns the events of that kind so far.
func (f *fixture) exits() []string {
	var exits []string
	for _, e := range f.events.list() {
		if strings.HasPrefix(e, "exited ") {
			exits = append(exits, e)
		}
	}
	return exits
}

// proceed brings a created container into a phase; what fails there fails
// because the VM goes.
func (f *fixture) proceed(c *Container, phase string) {
	f.t.Helper()
	if phase == "created" {
		return
	}
	err := c.Start(f.t.Context())
	switch phase {
	case "starting":
		if err == nil {
			f.t.Error("started")
		}
		return
	case "paused", "pausing":
		err = c.Pause(f.t.Context())
	case "exec running", "exec starting":
		f.exec(c, "e", "wait")
		err = c.StartExec(f.t.Context(), "e")
	case "killing":
		err = c.Kill(f.t.Context(), "", 15, false)
	}
	if gone := phase == "pausing" || phase == "exec starting" || phase == "killing"; gone != (err != nil) {
		f.t.Errorf("%s: %v", phase, err)
	}
}

// TestStop reports every process and keeps the containers until they are deleted.
func TestStop(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	pod, c := f.run(podID, "wait"), f.run("c", "wait")
	created := f.create("d", "wait")
	f.exec(c, "e", "wait")
	if err := c.StartExec(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, ended := range []*Container{pod, c, created} {
		if f.wait(ended, "") == 0 || ended.State() != ContainerExited {
			t.Errorf("%s is %s", ended.ID, ended.State())
		}
		if _, err := ended.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if f.Containers() != 0 {
		t.Errorf("%d containers are left", f.Containers())
	}
}

// TestKillThatIsNotAnswered ends the VM: a guest that does not even take
// SIGKILL is not worth keeping. State answers all the while.
func TestKillThatIsNotAnswered(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	f.vm.Config.CallTimeout = 300 * time.Millisecond
	f.Sandbox = f.sandbox()
	c := f.run("c", "deaf")
	done := make(chan error, 1)
	go func() { done <- c.Kill(t.Context(), "", 9, true) }()
	if c.State() != ContainerRunning || f.State() != StateReady {
		t.Errorf("%s, %s", c.State(), f.State())
	}
	if err := <-done; err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := f.wait(c, ""); status == 0 {
		t.Error("ended with 0")
	}
	<-f.end.released
}

// TestKillWaitsForTheStartOfAnExec: a signal that comes too early would be
// lost, and the proxy would take the exec for ended.
func TestKillWaitsForTheStartOfAnExec(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	held, release := make(chan struct{}), make(chan struct{})
	f.agent.hook = func(code hyperstart.Code) (hyperstart.Code, []byte) {
		if code == hyperstart.ExecCmd {
			close(held)
			<-release
		}
		return 0, nil
	}
	c := f.run("c", "wait")
	f.exec(c, "e", "wait")
	started, killed := make(chan error, 1), make(chan error, 1)
	go func() { started <- c.StartExec(t.Context(), "e") }()
	<-held
	go func() { killed <- c.Kill(t.Context(), "e", 9, false) }()
	select {
	case err := <-killed:
		t.Errorf("killed before the start: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-started; err != nil {
		t.Error(err)
	}
	if err := <-killed; err != nil {
		t.Error(err)
	}
	if status := f.wait(c, "e"); status != statusKilled {
		t.Errorf("ended with %d", status)
	}
}

func TestPause(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	for _, c := range []*Container{f.run(podID, "wait"), f.run("c", "wait")} {
		if err := c.Resume(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("resume: %v", err)
		}
		for range 2 {
			if err := c.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Pause(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) || c.State() != ContainerPaused {
				t.Errorf("second pause: %v, %s", err, c.State())
			}
			f.exec(c, fmt.Sprint("e", c.ID, time.Now().UnixNano()), "wait")
			if err := c.Resume(t.Context()); err != nil || c.State() != ContainerRunning {
				t.Fatal(err)
			}
		}
		// A signal wakes the vCPUs, because it must reach its process.
		if c.isSandboxContainer() {
			if err := c.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Kill(t.Context(), "", 9, true); err != nil {
			t.Fatal(err)
		}
		if status := f.wait(c, ""); status != statusKilled {
			t.Errorf("ended with %d", status)
		}
	}
}

// TestLossWhileMounting: the clean-up of a lost VM and the creation of a
// container run at the same time; what containerd handed over stays whole.
func TestLossWhileMounting(t *testing.T) {
	for i := range 20 {
		f := newFixture(t, hyperstart.DialectCCv2)
		f.create(podID, "wait")
		snapshot := filepath.Join(f.dir, "snapshot")
		if err := os.MkdirAll(filepath.Join(snapshot, "a/b/c"), 0o755); err != nil {
			t.Fatal(err)
		}
		bundle := f.bundle("c", "wait")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = f.Create(t.Context(), CreateRequest{
				ID: "c", Bundle: bundle,
				Rootfs: []mount.Mount{{Type: "bind", Source: snapshot, Options: []string{"rbind"}}},
			})
		}()
		if i%2 == 0 {
			f.driver.machine().die()
		}
		if err := f.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		<-done
		if _, err := os.Stat(filepath.Join(snapshot, "a/b/c")); err != nil {
			t.Fatalf("the snapshot was damaged: %v", err)
		}
	}
}
