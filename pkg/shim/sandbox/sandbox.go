package sandbox

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/goroutines"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// Options are what a sandbox is made with.
type Options struct {
	Namespace string
	ID        string
	Machine   Machine
	Sink      Sink
	// KillTimeout is how long a container may take to end after SIGKILL before
	// the VM is killed.
	KillTimeout time.Duration
	// ConfigErr, when set, is why no container can be created: a configuration
	// that cannot be used. The shim serves nevertheless, so that the error
	// reaches the caller of Create.
	ConfigErr error
}

// Sandbox is one VM and the containers in it. It is safe for concurrent use.
type Sandbox struct {
	opts    Options
	machine Machine

	ctx    context.Context //nolint:containedctx // of all goroutines; requests only wait for them
	cancel context.CancelFunc
	wg     goroutines.Group // joined by Stop

	boot    boot
	end     end
	creates goroutines.Group // creations and removals, which use the machine
	started atomic.Bool      // the guest has the network of the first start

	mu         sync.Mutex // guards the fields below
	state      State
	containers map[string]*Container
}

// boot is how the boot went.
type boot struct {
	done  chan struct{} // closed when it has ended, or there will be none
	err   error         // valid after done
	abort context.CancelFunc
}

// end is how the sandbox ended.
type end struct {
	known     chan struct{} // closed when it is known that and why the VM ends
	cause     error         // valid after known
	oomKilled bool          // the host killed the VM, out of memory; valid after known
	released  chan struct{} // closed when everything was released
}

// New returns a sandbox that has acquired nothing yet.
func New(opts Options) *Sandbox {
	s := &Sandbox{
		opts: opts, machine: opts.Machine,
		boot:       boot{done: make(chan struct{})},
		end:        end{known: make(chan struct{}), released: make(chan struct{})},
		containers: make(map[string]*Container),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// ID is the id of the sandbox.
func (s *Sandbox) ID() string { return s.opts.ID }

// State is the present state.
func (s *Sandbox) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Container returns a container. Unknown ids are errdefs.ErrNotFound.
func (s *Sandbox) Container(id string) (*Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil && !c.abandoned() {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
}

// Containers returns how many containers there are, also partially created ones.
func (s *Sandbox) Containers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers)
}

// List returns all containers.
func (s *Sandbox) List() []*Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Container, 0, len(s.containers))
	for _, c := range s.containers {
		all = append(all, c)
	}
	return all
}

// EnsureReady boots the sandbox when nobody has, and waits until it is ready.
// ctx bounds the wait alone: the boot has its own deadline, so that a caller
// that gives up does not leave a partially created VM.
func (s *Sandbox) EnsureReady(ctx context.Context, pod bundle.Pod) error {
	s.mu.Lock()
	if s.state == StateNew {
		if err := s.opts.ConfigErr; err != nil {
			s.mu.Unlock()
			return err
		}
		s.toLocked(StateBooting)
		bootCtx, cancel := context.WithCancel(activity.Carry(s.ctx, ctx))
		s.boot.abort = cancel
		s.wg.Go(func() { s.runBoot(bootCtx, pod) })
	}
	s.mu.Unlock()
	select {
	case <-s.boot.done:
	case <-ctx.Done():
		return fmt.Errorf("boot sandbox %s: %w", s.opts.ID, ctx.Err())
	}
	if err := s.boot.err; err != nil {
		return err
	}
	return s.ready()
}

// isReady reports whether the guest accepts commands.
func (s *Sandbox) isReady() bool { return s.State() == StateReady }

// ready is nil when the guest accepts commands.
func (s *Sandbox) ready() error {
	state := s.State()
	if state == StateReady {
		return nil
	}
	select {
	case <-s.end.known:
		return fmt.Errorf("sandbox %s is %s: %w: %w", s.opts.ID, state, s.end.cause, errdefs.ErrUnavailable)
	default:
		return fmt.Errorf("sandbox %s is %s: %w", s.opts.ID, state, errdefs.ErrUnavailable)
	}
}

// runBoot boots the machine. It runs once.
func (s *Sandbox) runBoot(ctx context.Context, pod bundle.Pod) {
	err := s.machine.Boot(ctx, pod, guestEvents(s))
	s.mu.Lock()
	s.boot.err = err
	aborted := s.state == StateStopping // then Stop cleans up
	switch {
	case aborted:
	case err == nil:
		s.toLocked(StateReady)
	default:
		s.toLocked(StateStopping) // a Stop from here on waits, and does not clean up as well
	}
	s.mu.Unlock()
	if err != nil && !aborted {
		s.release(err) // whoever waits gets the error when nothing is left
	}
	close(s.boot.done)
	if err == nil && !aborted {
		s.supervise()
	}
}

// startContainer starts the init process of a container in the guest.
func (s *Sandbox) startContainer(ctx context.Context, id string) error {
	if err := s.ready(); err != nil {
		return err
	}
	// Clients may have set up the network since Create, which is when they learn
	// of the namespace. Later changes follow by themselves, and no start waits for
	// them or fails for them.
	if !s.started.Load() {
		if err := s.machine.RefreshNetwork(ctx); err != nil {
			return err
		}
		s.started.Store(true)
	}
	return s.machine.Guest().StartContainer(ctx, id)
}
