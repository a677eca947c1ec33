//go:build e2e

package cri_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestRestart kills containerd while a pod runs: the pod lives on, and the new
// daemon knows all about it. What a container writes meanwhile waits for it.
func TestRestart(t *testing.T) {
	c := ownCRI(t)
	c.Watch(t)
	pod := c.RunPod(t, "survivor", nil)
	main := pod.Start(t, "main", harness.Sleep)
	dir := t.TempDir()
	writer := pod.StartWith(t, "writer", `i=0; while [ ! -e /go/end ]; do i=$((i+1)); echo "line $i"; done; echo "last $i"; sleep 3600`,
		mounted(&runtimeapi.Mount{HostPath: dir, ContainerPath: "/go"}))
	awaitLog(t, writer, "line 100\n")
	before := main.PID(t)
	c.Kill(t)
	c.Restart(t)
	if got := main.Status(t); got.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("after the restart the container is %s", got.State)
	}
	if got := main.PID(t); got != before {
		t.Errorf("after the restart the container's pid is %d, was %d", got, before)
	}
	main.WantOutput(t, "alive", "echo", "alive")
	size := len(writer.Log(t))
	harness.Until(t, "the log continues", func() bool { return len(writer.Log(t)) > size })
	write(t, dir, "end", "")
	awaitLog(t, writer, "last ")
	wantOneGap(t, writer.Log(t))
	main.Stop(t, 0)
	if got := main.Wait(t); got.ExitCode != 137 {
		t.Errorf("exit code %d after SIGKILL, want 137", got.ExitCode)
	}
	pod.Remove(t)
}

// wantOneGap wants the numbered lines of a log. What a daemon that is killed has
// read and not written is lost, with any runtime: at one place, and no more than
// its buffers hold.
func wantOneGap(t *testing.T, log string) {
	t.Helper()
	const buffers = 128 << 10 / len("line 1\n")
	var last, gaps int
	for _, found := range numbered.FindAllStringSubmatch(log, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		if n != last+1 {
			gaps++
			t.Logf("line %d comes after line %d", n, last)
		}
		if n <= last || n > last+buffers {
			t.Errorf("line %d comes after line %d", n, last)
		}
		last = n
	}
	if gaps > 1 {
		t.Errorf("%d gaps", gaps)
	}
}

var numbered = regexp.MustCompile(`(?m)stdout F line (\d+)$`)

// TestRestartInRunPodSandbox kills containerd while a pod is made. A kubelet
// that knows nothing of it must get its pod, and nothing of the first attempt
// may be left.
func TestRestartInRunPodSandbox(t *testing.T) {
	c := ownCRI(t)
	points := []struct {
		name    string
		reached func(*harness.Events) bool
	}{
		{"the start command runs", func(*harness.Events) bool { return shimRuns(c, true) }},
		{"the VM boots", func(*harness.Events) bool { return len(c.FindAll(harness.QEMU)) > 0 }},
		{"the task runs", func(e *harness.Events) bool { return e.Seen("start") }},
		{"the shim runs", func(*harness.Events) bool { return shimRuns(c, false) }},
		{"the task is created", func(e *harness.Events) bool { return e.Seen("create") }},
	}
	for _, p := range points[:full(len(points), 3)] {
		t.Run(p.name, func(t *testing.T) {
			c.Watch(t)
			pod := c.NewPod(t, "again", nil)
			events := c.Record(t)
			c.KillDuring(t, p.name, func() bool { return p.reached(events) }, pod.Run)
			c.Restart(t)
			wantPod(t, c, pod)
		})
	}
}

// wantPod wants a pod to run after all, alone, and to go without a trace.
func wantPod(t *testing.T, c *harness.CRI, pod *harness.Pod) {
	t.Helper()
	pod.Sync(t)
	if got := pod.State(t); got != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the pod is %s", got)
	}
	main := pod.Start(t, "main", harness.Sleep)
	main.WantContains(t, "10.99.0.", "ip", "-4", "addr", "show", "eth0")
	harness.Until(t, "end of the VMs of other attempts", func() bool { return len(c.FindAll(harness.QEMU)) == 1 })
	pod.Remove(t)
}

// shimRuns reports whether a shim serves, or is being started.
func shimRuns(c *harness.CRI, starting bool) bool {
	return slices.ContainsFunc(c.FindAll(harness.Shim), func(p harness.Process) bool {
		return starting == slices.Contains(p.Args, "start") && !slices.Contains(p.Args, "delete")
	})
}

// TestRestartInContainer kills containerd in the calls about a container of one
// pod, which must live through all of it.
func TestRestartInContainer(t *testing.T) {
	c := ownCRI(t)
	c.Watch(t)
	pod := c.RunPod(t, "survivor", nil)
	vm := c.AwaitProcess(t, harness.QEMU, pod.ID)
	t.Run("create", func(t *testing.T) {
		main := pod.Container("created", harness.Sleep, nil)
		before := records(t, c)
		c.KillDuring(t, "the container is recorded", func() bool { return records(t, c) > before }, main.Create)
		c.Restart(t)
		main.Sync(t)
		wantAlive(t, main, vm)
	})
	for i, p := range []struct {
		name    string
		reached func(*harness.Events, string) bool
	}{
		{"the root file system is exposed", func(_ *harness.Events, id string) bool { return c.Exposed(id) }},
		{"the task is created", func(e *harness.Events, id string) bool { return e.Has("create", id) }},
		{"the task runs", func(e *harness.Events, id string) bool { return e.Has("start", id) }},
	} {
		t.Run("start/"+p.name, func(t *testing.T) {
			main := pod.Container(fmt.Sprintf("started%d", i), harness.Sleep, nil)
			if err := main.Create(); err != nil {
				t.Fatal(err)
			}
			events := c.Record(t)
			id := main.ID
			c.KillDuring(t, p.name, func() bool { return p.reached(events, id) }, main.Run)
			c.Restart(t)
			main.Sync(t)
			// A containerd that finds a task that is created, but does not run,
			// removes the fifos that it would need to start it again. Who is killed at
			// the first point may have come so far, and then that is why.
			noFifos := i == 0 && strings.Contains(c.Log(), "create container "+id+": open stdio: ")
			if main.ID != id && i != 1 && !noFifos {
				t.Error("the container was not started again, but lost")
			}
			wantAlive(t, main, vm)
		})
	}
	t.Run("start/the guest stands still", func(t *testing.T) { restartStill(t, c, pod, vm, false) })
	if full(1, 0) == 1 { // containerd has deadlines that pass
		t.Run("start/the guest stands still for long", func(t *testing.T) { restartStill(t, c, pod, vm, true) })
	}
	t.Run("stop/grace", func(t *testing.T) { restartInGrace(t, c, pod) })
	t.Run("stop/end", func(t *testing.T) { restartInEnd(t, c, pod) })
	pod.Remove(t)
}

// records counts the containers that containerd knows.
func records(t *testing.T, c *harness.CRI) int {
	t.Helper()
	all, err := c.Client.Containers(c.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// wantAlive wants a container to run with the VM's pid, and removes it.
func wantAlive(t *testing.T, c *harness.PodContainer, vm harness.Process) {
	t.Helper()
	if got := c.Status(t); got.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s: %s", got.State, got.Message)
	}
	c.WantOutput(t, "alive", "echo", "alive")
	if err := unix.Kill(vm.PID, 0); err != nil {
		t.Errorf("the first VM is gone: %v", err)
	}
	c.Stop(t, 0)
	if got := c.Wait(t); got.ExitCode != 137 {
		t.Errorf("exit code %d after SIGKILL, want 137", got.ExitCode)
	}
	c.Remove(t)
}

// restartStill lets the guest carry out the command of a client that has gone,
// before or after the next one asks for the same.
func restartStill(t *testing.T, c *harness.CRI, pod *harness.Pod, vm harness.Process, late bool) {
	main := pod.Container(fmt.Sprintf("still-%v", late), harness.Sleep, nil)
	if err := main.Create(); err != nil {
		t.Fatal(err)
	}
	id := main.ID
	vm.Signal(t, unix.SIGSTOP)
	c.KillDuring(t, "the root file system is exposed", func() bool { return c.Exposed(id) }, main.Run)
	if !late {
		vm.Signal(t, unix.SIGCONT)
	}
	c.Restart(t)
	if late {
		again := make(chan error, 1)
		go func() { again <- main.Run() }()
		harness.Until(t, "the call again", func() bool { return strings.Count(c.Log(), "StartContainer for \\\""+id) > 1 })
		vm.Signal(t, unix.SIGCONT)
		if err := <-again; err != nil {
			t.Errorf("start container again: %v", err)
		}
	}
	main.Sync(t)
	if main.ID != id {
		t.Error("the container was not started again, but lost")
	}
	wantAlive(t, main, vm)
}

// restartInGrace kills containerd between SIGTERM and SIGKILL.
func restartInGrace(t *testing.T, c *harness.CRI, pod *harness.Pod) {
	main := pod.Start(t, "stubborn", "trap 'echo asked' TERM; echo ready; while :; do sleep 1; done")
	awaitLog(t, main, "ready")
	before, pid := main.Status(t), main.PID(t)
	c.KillDuring(t, "asked to end", func() bool { return strings.Contains(main.Log(t), "asked") },
		func() error { return main.TryStop(60) })
	c.Restart(t)
	got := main.Status(t)
	if got.State != runtimeapi.ContainerState_CONTAINER_RUNNING || got.StartedAt != before.StartedAt || main.PID(t) != pid {
		t.Errorf("the container is %s, started at %d with pid %d, was at %d with %d", got.State, got.StartedAt, main.PID(t), before.StartedAt, pid)
	}
	main.Stop(t, 1)
	if got := main.Wait(t); got.ExitCode != 137 {
		t.Errorf("exit code %d after SIGKILL, want 137", got.ExitCode)
	}
	main.Remove(t)
}

// restartInEnd lets a container that was asked to end do so while there is no
// containerd.
func restartInEnd(t *testing.T, c *harness.CRI, pod *harness.Pod) {
	dir := t.TempDir()
	script := "trap 'echo asked; while [ ! -e /go/now ]; do sleep 0.1; done; exit 7' TERM; echo ready; while :; do sleep 1; done"
	main := pod.StartWith(t, "slow", script, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/go"}}
	})
	awaitLog(t, main, "ready")
	c.KillDuring(t, "asked to end", func() bool { return strings.Contains(main.Log(t), "asked") },
		func() error { return main.TryStop(60) })
	write(t, dir, "now", "")
	harness.Until(t, "the shim has noted the end", func() bool {
		found, _ := filepath.Glob(c.Bundle(main.ID, "ccv2-exit.json")) // the pattern is well-formed
		return len(found) > 0
	})
	c.Restart(t)
	if got := main.Wait(t); got.ExitCode != 7 {
		t.Errorf("exit code %d, want 7", got.ExitCode)
	}
	main.Remove(t)
}

// awaitLog waits until a container has written something.
func awaitLog(t *testing.T, c *harness.PodContainer, text string) {
	t.Helper()
	harness.Until(t, fmt.Sprintf("%q in the log", text), func() bool { return strings.Contains(c.Log(t), text) })
}
