package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// supervise waits for the end of the VM or of what it depends on. It is the
// only place that notices a loss.
func (s *Sandbox) supervise(ctx context.Context, others ...<-chan error) {
	merged := make(chan error, len(others))
	for _, other := range others {
		go func() {
			select {
			case err := <-other:
				merged <- err
			case <-s.stopped:
			}
		}()
	}
	var cause error
	select {
	case <-s.vm.Done():
		cause = s.vmEnded()
	case cause = <-merged:
	}
	s.mu.Lock()
	if s.state != Ready {
		s.mu.Unlock()
		return // a stop that is under way, or a boot that fails, cleans up
	}
	s.toLocked(Stopping)
	s.mu.Unlock()
	log.G(ctx).WithError(cause).WithField("console", s.vm.ConsoleTail(consoleLines)).Error("sandbox lost")
	s.killVM(ctx)
	s.finish(ctx, cause)
}

// vmEnded describes how the VMM ended.
func (s *Sandbox) vmEnded() error {
	return fmt.Errorf("vm ended by itself: qemu %s", s.vm.Exit())
}

// finish is the last step of every end: processes exit, resources go back.
func (s *Sandbox) finish(ctx context.Context, cause error) {
	oom := s.killedForMemory(ctx)
	s.mu.Lock()
	s.lost, s.oomKilled = cause, oom
	close(s.ended)
	containers := make([]*Container, 0, len(s.containers))
	for _, c := range s.containers {
		containers = append(containers, c)
	}
	s.mu.Unlock()
	if oom {
		for _, c := range containers {
			c.oom()
		}
	}
	if s.server != nil {
		_ = s.server.Close() // ends all sessions
	}
	s.awaitCreates()
	for _, c := range containers {
		c.vmLost(ctx)
	}
	cleanup, cancel := context.WithTimeout(ctx, store.Timeout)
	defer cancel()
	if err := s.undo.run(cleanup); err != nil {
		log.G(ctx).WithError(err).Error("clean up sandbox")
	}
	s.mu.Lock()
	s.toLocked(Stopped)
	s.mu.Unlock()
	close(s.stopped)
}

// enter says that a container takes things from the sandbox until leave.
func (s *Sandbox) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != Ready {
		return fmt.Errorf("sandbox %s is %s: %w", s.opts.ID, s.state, s.lostLocked())
	}
	s.creates.Add(1)
	return nil
}

func (s *Sandbox) leave() { s.creates.Done() }

// createsLeft bounds the wait for containers that are being made when the VM
// is lost: they fail at their next step.
const createsLeft = 10 * time.Second

// awaitCreates waits until nothing is mounted for a container any more, so
// that the clean-up finds all of it.
func (s *Sandbox) awaitCreates() {
	none := make(chan struct{})
	go func() {
		s.creates.Wait()
		close(none)
	}()
	select {
	case <-none:
	case <-time.After(createsLeft):
	}
}
