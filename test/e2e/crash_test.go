//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// phase is how far a sandbox is when something is killed.
type phase string

const (
	booting  phase = "Booting"  // QEMU runs, Create has not answered
	created  phase = "Created"  // the container's process does not run yet
	running  phase = "Running"  // it does
	stopping phase = "Stopping" // it has ended with 42, Delete has not answered
)

// sandbox is a sandbox in some phase.
type sandbox struct {
	*harness.Containerd

	id        string
	phase     phase
	victim    harness.Role
	container client.Container
	events    *harness.Events
	answer    chan error // of the call that is under way, Create or Delete
}

// TestCrash kills each part of a sandbox with SIGKILL in each phase. Whatever
// happens, a client must learn the truth, and nothing may be left.
func TestCrash(t *testing.T) {
	c := harness.Private(t)
	for _, p := range []phase{booting, created, running, stopping} {
		for _, role := range []harness.Role{harness.QEMU, harness.VirtioFSD, harness.Shim} {
			t.Run(string(p)+"/"+strings.Trim(string(role), "-"), func(t *testing.T) {
				if p == booting && role == harness.QEMU {
					c.NoSpares(t) // in place of a spare VM that is killed the pod gets another one
				}
				s := reach(t, c, p)
				s.victim = role
				c.AwaitProcess(t, role, s.id).Signal(t, unix.SIGKILL)
				s.wantTruth(t)
			})
		}
		t.Run(string(p)+"/containerd", func(t *testing.T) {
			s := reach(t, c, p)
			c.Kill(t)
			if p != booting && p != stopping {
				c.Restart(t)
				s.wantUnharmed(t)
				return
			}
			t.Logf("the client of the dead daemon says: %v", <-s.answer)
			if p == stopping {
				c.AwaitProcess(t, harness.QEMU, s.id).Signal(t, unix.SIGCONT)
			}
			c.Restart(t)
			s.wantGone(t)
		})
	}
}

var sandboxes int

// reach makes a sandbox and leads it to a phase.
func reach(t *testing.T, c *harness.Containerd, p phase) *sandbox {
	t.Helper()
	c.Watch(t)
	sandboxes++
	s := &sandbox{
		Containerd: c, phase: p, id: fmt.Sprintf("crash%d", sandboxes),
		events: c.Record(t), answer: make(chan error, 1),
	}
	args := []string{"sleep", "3600"}
	if p == stopping {
		args = []string{"sh", "-c", "exit 42"}
	}
	s.container = c.Container(t, s.id, args)
	if p == booting {
		go func() {
			_, err := c.NewTask(t, s.container, harness.Streams{})
			s.answer <- err
		}()
		c.AwaitProcess(t, harness.VirtioFSD, s.id)
		c.AwaitProcess(t, harness.QEMU, s.id)
		return s
	}
	task := c.Task(t, s.container, harness.Streams{})
	if p == created {
		return s
	}
	if err := task.Start(c.Context()); err != nil {
		t.Fatal(err)
	}
	if p == running {
		return s
	}
	s.events.Await(t, "exit", s.id, "")
	// A guest that stands still keeps Delete waiting.
	c.AwaitProcess(t, harness.QEMU, s.id).Signal(t, unix.SIGSTOP)
	go func() {
		_, err := task.Delete(c.Context())
		s.answer <- err
	}()
	shim := c.AwaitProcess(t, harness.Shim, s.id)
	harness.Until(t, "Delete in the shim", func() bool {
		_, stacks := c.Goroutines(t, shim)
		return strings.Contains(stacks, "sandbox.(*Container).Delete(")
	})
	return s
}

// wantTruth checks what the world learns of a sandbox that has lost a part.
func (s *sandbox) wantTruth(t *testing.T) {
	t.Helper()
	switch s.phase {
	case booting:
		if err := <-s.answer; err == nil {
			t.Error("Create succeeded")
		} else {
			t.Logf("Create says: %v", err)
		}
	case created, running:
		e := s.events.Await(t, "exit", s.id, "")
		if e.Status == 0 {
			t.Errorf("exit event with status 0")
		}
		t.Logf("exit event: %s", e)
	case stopping:
		// containerd gives up a Delete whose shim dies; the next one answers.
		if err := <-s.answer; err != nil && !errdefs.IsNotFound(err) && s.victim != harness.Shim {
			t.Errorf("Delete: %v", err)
		}
	}
	s.wantGone(t)
	s.wantOneExit(t)
}

// wantGone wants State and Delete to answer.
func (s *sandbox) wantGone(t *testing.T) {
	t.Helper()
	ctx := s.Context()
	container, err := s.Client.LoadContainer(ctx, s.id) // by the daemon of today
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return
	}
	if err != nil {
		t.Fatalf("find task: %v", err)
	}
	var status client.Status
	harness.Until(t, "end of the task", func() bool {
		status, err = task.Status(ctx)
		return err != nil || status.Status == client.Stopped || s.phase == booting
	})
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		t.Errorf("State: %v", err)
	case s.phase == booting: // a daemon that restarted finds it partially created
	case status.ExitStatus == 0:
		t.Errorf("State: exit status 0")
	case s.phase == stopping && status.ExitStatus != 42:
		t.Errorf("State: exit status %d, want 42", status.ExitStatus)
	}
	exit, err := task.Delete(ctx, client.WithProcessKill)
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		t.Errorf("Delete: %v", err)
	case exit.ExitCode() == 0:
		t.Error("Delete: exit status 0")
	}
}

// wantOneExit wants each process to have ended once, and never well.
func (s *sandbox) wantOneExit(t *testing.T) {
	t.Helper()
	exits := 0
	for _, e := range s.events.Of(s.id) {
		switch e.Topic {
		case "exit":
			exits++
			if e.Status == 0 || s.phase == stopping && e.Status != 42 {
				t.Errorf("event %s", e)
			}
		case "delete":
			if e.Status == 0 || s.phase == stopping && e.Status != 42 {
				t.Errorf("event %s", e)
			}
		}
	}
	want := 1
	switch {
	case s.phase == booting: // no start was announced
		want = 0
	case s.phase == stopping && s.victim == harness.Shim:
		want = 2 // containerd repeats what a dead shim has said
	}
	if exits != want {
		t.Errorf("%d exit events, want %d: %s", exits, want, s.events.Of(s.id))
	}
}

// wantUnharmed wants a container that does not notice a restart of containerd.
func (s *sandbox) wantUnharmed(t *testing.T) {
	t.Helper()
	ctx := s.Context()
	s.events = s.Record(t)
	container, err := s.Client.LoadContainer(ctx, s.id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.phase == created {
		if err := task.Start(ctx); err != nil {
			t.Fatalf("start: %v", err)
		}
	}
	if out, status := s.Output(t, task, "alive", "echo", "alive"); out != "alive\n" || status != 0 {
		t.Errorf("exec: output %q, exit status %d", out, status)
	}
	if err := task.Kill(ctx, unix.SIGKILL); err != nil {
		t.Errorf("kill: %v", err)
	}
	if e := s.events.Await(t, "exit", s.id, ""); e.Status != 137 {
		t.Errorf("exit event %s, want status 137", e)
	}
	s.wantGone(t)
}
