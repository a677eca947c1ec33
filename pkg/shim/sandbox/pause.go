package sandbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Pause stops the container: its processes, or, for the sandbox's own
// container, the vCPUs of the VM.
func (c *Container) Pause(ctx context.Context) error {
	if err := c.change(ctx, Pausing, Paused, Running, c.pause); err != nil {
		return fmt.Errorf("pause container %s: %w", c.ID, err)
	}
	c.sandbox.opts.Sink.Publish(TaskPaused{ContainerID: c.ID})
	return nil
}

// Resume lets a paused container go on.
func (c *Container) Resume(ctx context.Context) error {
	if err := c.change(ctx, Resuming, Running, Paused, c.resume); err != nil {
		return fmt.Errorf("resume container %s: %w", c.ID, err)
	}
	c.sandbox.opts.Sink.Publish(TaskResumed{ContainerID: c.ID})
	return nil
}

// change goes through an in-between state to another one, or back on error.
func (c *Container) change(ctx context.Context, between, to, back ContainerState, work func(context.Context) error) error {
	c.mu.Lock()
	err := c.toLocked(between)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	workErr := work(ctx)
	if workErr != nil {
		to = back
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.toLocked(to); err != nil { // it exited meanwhile
		return err
	}
	return workErr
}

func (c *Container) pause(ctx context.Context) error {
	if !c.isSandbox() {
		return c.sandbox.change(ctx, "pausecontainer", "", hyperstart.ContainerRef{Container: c.ID})
	}
	if err := c.sandbox.vm.Pause(ctx); err != nil {
		return err
	}
	c.sandbox.setPaused(true)
	return nil
}

func (c *Container) resume(ctx context.Context) error {
	if !c.isSandbox() {
		return c.sandbox.change(ctx, "resumecontainer", "", hyperstart.ContainerRef{Container: c.ID})
	}
	if err := c.sandbox.vm.Resume(ctx); err != nil {
		return err
	}
	c.sandbox.setPaused(false)
	return nil
}

func (s *Sandbox) setPaused(paused bool) {
	s.mu.Lock()
	s.paused = paused
	s.mu.Unlock()
}

// wake lets stopped vCPUs go on, because a signal must reach its process.
func (s *Sandbox) wake(ctx context.Context) error {
	s.mu.Lock()
	paused, own := s.paused, s.containers[s.opts.ID]
	s.mu.Unlock()
	if !paused {
		return nil
	}
	if own != nil && own.State() == Paused {
		return own.Resume(ctx)
	}
	if err := s.vm.Resume(ctx); err != nil {
		return err
	}
	s.setPaused(false)
	return nil
}

// Processes lists the container's processes with the guest's pids and exec
// ids. It is never empty for a container that exists: when the guest cannot
// answer, the VMM stands for all, because containerd takes an empty list for a
// container that is gone.
func (c *Container) Processes(ctx context.Context) ([]ProcessInfo, error) {
	all := []ProcessInfo{{PID: c.PID()}}
	switch c.State() {
	case Created, Running, Starting:
	case Creating, Pausing, Paused, Resuming, Exited, Deleted:
		return all, nil
	}
	answer, err := c.sandbox.call(ctx, "listprocesses", "", hyperstart.ContainerRef{Container: c.ID})
	if err != nil {
		return all, nil //nolint:nilerr // see above
	}
	var list hyperstart.ProcessList
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("decode process list: %w", err)
	}
	if len(list.Processes) == 0 {
		return all, nil
	}
	all = all[:0]
	for _, p := range list.Processes {
		all = append(all, ProcessInfo{PID: p.PID, ExecID: execIDOf(p.Process)})
	}
	return all, nil
}

// ProcessInfo is one process of a container.
type ProcessInfo struct {
	PID    int
	ExecID string // "" for the first process and for descendants
}

// execIDOf is the reverse of Process.guestID.
func execIDOf(guestID string) string {
	const prefix = "exec-"
	if len(guestID) > len(prefix) && guestID[:len(prefix)] == prefix {
		return guestID[len(prefix):]
	}
	return ""
}
