package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/streams"
)

// Stop ends the VM, with the guest's help when it is ready, releases everything
// and joins the goroutines of the sandbox. It is idempotent. All processes of
// the sandbox are reported as exited; containers stay until they are deleted.
// ctx bounds the wait alone.
func (s *Sandbox) Stop(ctx context.Context) error {
	s.mu.Lock()
	was := s.state
	switch was {
	case StateNew:
		s.toLocked(StateStopped)
		close(s.boot.done) // there will be no boot
		close(s.end.released)
	case StateBooting, StateReady:
		s.toLocked(StateStopping)
		s.wg.Go(func() { s.runStop(was == StateReady) })
	case StateStopping, StateStopped:
	}
	s.mu.Unlock()
	select {
	case <-s.end.released:
	case <-ctx.Done():
		return fmt.Errorf("stop sandbox %s: %w", s.opts.ID, ctx.Err())
	}
	return s.join(ctx)
}

// runStop ends the VM and cleans up. It runs once.
func (s *Sandbox) runStop(orderly bool) {
	if orderly {
		s.machine.PowerOff(s.ctx)
	}
	s.boot.abort()
	<-s.boot.done
	s.release(errors.New("sandbox was stopped"))
}

// join waits for the goroutines of the sandbox. Streams that a client does not
// read are closed for that, after their time.
func (s *Sandbox) join(ctx context.Context) error {
	for _, c := range s.List() {
		for _, p := range c.List() {
			s.wg.Go(func() { p.io.Close(s.ctx) })
		}
	}
	select {
	case <-s.wg.Idle():
		s.cancel()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop sandbox %s: join its goroutines: %w", s.opts.ID, ctx.Err())
	}
}

// supervise waits for the end of the VM or of what it depends on. It is the
// only place that notices a loss.
func (s *Sandbox) supervise() {
	select {
	case <-s.machine.Lost():
	case <-s.end.released:
		return
	}
	s.mu.Lock()
	lost := s.state == StateReady // otherwise a stop is under way, which cleans up
	if lost {
		s.toLocked(StateStopping)
	}
	s.mu.Unlock()
	if !lost {
		return
	}
	cause := s.machine.Err()
	log.G(s.ctx).WithError(cause).WithField("sandbox", s.opts.ID).WithField("console", s.machine.Console()).Error("sandbox lost")
	s.release(cause)
}

// release is the last step of every end: the VM is killed, processes exit,
// everything is released. It runs once.
func (s *Sandbox) release(cause error) {
	s.machine.Kill(s.ctx, cause)
	oom, err := s.machine.OOMKilled()
	if err != nil {
		log.G(s.ctx).WithError(err).WithField("sandbox", s.opts.ID).Warn("find out whether the host was out of memory")
	}
	containers := s.List()
	if oom { // before the exits, which wait for the cause
		for _, c := range containers {
			c.reportOOM()
		}
	}
	s.end.cause, s.end.oomKilled = cause, oom
	close(s.end.known)
	s.machine.Disconnect()
	s.awaitCreates()
	s.awaitExits(containers)
	if err := s.machine.Release(s.ctx); err != nil {
		log.G(s.ctx).WithError(err).WithField("sandbox", s.opts.ID).Error("clean up sandbox")
	}
	s.mu.Lock()
	s.toLocked(StateStopped)
	s.mu.Unlock()
	close(s.end.released)
}

// beginCreate counts a container that acquires things, until endCreate.
func (s *Sandbox) beginCreate() error {
	s.mu.Lock()
	ready := s.state == StateReady
	if ready {
		s.creates.Add()
	}
	s.mu.Unlock()
	if !ready {
		return s.ready()
	}
	return nil
}

func (s *Sandbox) endCreate() { s.creates.Done() }

// createsLimit bounds the wait for containers that are being created when the
// VM is lost: they fail at their next step.
const createsLimit = 10 * time.Second

// awaitCreates waits until no container is being created, or removed.
func (s *Sandbox) awaitCreates() {
	select {
	case <-s.creates.Idle():
	case <-time.After(createsLimit):
	}
}

// awaitExits waits until the ends of all processes were reported: their sessions
// have ended with the connection to the guest. A container that is being created
// fails by itself.
func (s *Sandbox) awaitExits(containers []*Container) {
	ctx, cancel := context.WithTimeout(s.ctx, 2*streams.DrainStall+execsLimit)
	defer cancel()
	for _, c := range containers {
		if c.State() == ContainerCreating {
			continue
		}
		if err := awaitExits(ctx, c.List()); err != nil {
			log.G(ctx).WithError(err).WithField("container", c.ID).Error("report exits")
		}
	}
}
