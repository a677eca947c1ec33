package sandbox

import (
	"context"
	"fmt"
)

// Pause stops the container: its processes, or, for the sandbox container, the
// vCPUs of the VM. Those of others that have joined a container go on.
func (c *Container) Pause(ctx context.Context) error {
	pause := c.sandbox.machine.Pause
	if !c.isSandboxContainer() || !c.bundle.OfPod() && c.sandbox.Containers() > 1 {
		pause = func(ctx context.Context) error { return c.sandbox.machine.Guest().Pause(ctx, c.ID) }
	}
	if err := c.transition(ctx, ContainerPausing, ContainerPaused, ContainerRunning, pause); err != nil {
		return fmt.Errorf("pause container %s: %w", c.ID, err)
	}
	c.sandbox.publish(TaskPaused{ContainerID: c.ID})
	return nil
}

// Resume lets a paused container continue.
func (c *Container) Resume(ctx context.Context) error {
	resume := c.sandbox.machine.Resume
	if !c.isSandboxContainer() || !c.sandbox.machine.Paused() {
		resume = func(ctx context.Context) error { return c.sandbox.machine.Guest().Resume(ctx, c.ID) }
	}
	if err := c.transition(ctx, ContainerResuming, ContainerRunning, ContainerPaused, resume); err != nil {
		return fmt.Errorf("resume container %s: %w", c.ID, err)
	}
	c.sandbox.publish(TaskResumed{ContainerID: c.ID})
	return nil
}

// transition goes through an in-between state to another one, or to fallback on
// an error of do.
func (c *Container) transition(ctx context.Context, via, to, fallback ContainerState, do func(context.Context) error) error {
	c.mu.Lock()
	err := c.toLocked(via)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	doErr := do(ctx)
	if doErr != nil {
		to = fallback
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.toLocked(to); err != nil { // it exited meanwhile
		return err
	}
	return doErr
}

// awaitPaused waits for a Pause or a Resume that is under way.
func (c *Container) awaitPaused(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cond.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.state == ContainerPausing || c.state == ContainerResuming {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait until container %s is %s no more: %w", c.ID, c.state, err)
		}
		c.cond.Wait()
	}
	return nil
}
