// Package sandbox is the domain core of the shim: a sandbox is one VM, a
// container is a group of processes in it, a process has streams and an exit.
// It knows no protobuf and no ttrpc; pkg/shim/task translates.
//
// Lock order: Sandbox.mu, then Container.mu, then Process.mu. No lock is held
// while the guest, the VMM or the disk is waited for: such waits happen in an
// in-between state (Booting, Starting, Pausing, …), which is what a concurrent
// State answers.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podnet"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Options are what a sandbox is made with.
type Options struct {
	Namespace string
	ID        string
	Driver    hypervisor.Driver
	VM        VMConfig
	StateDir  string // root of the directories of all sandboxes
	Sink      Sink
	// Failed, when set, is why no container can be created: a configuration
	// that cannot be used. The shim serves all the same, so that the error
	// reaches the caller of Create.
	Failed error
}

// VMConfig is the part of the configuration that makes the VM. Paths exist.
type VMConfig struct {
	Spec        hypervisor.Spec // without ID, Dir and ports
	ShareType   string          // "virtiofs" or "9p"
	VirtioFSD   string          // path of the binary
	Dialect     hyperstart.Dialect
	BootTimeout time.Duration // VMM start to READY
	CallTimeout time.Duration // one command in the guest
	ProxySocket bool          // serve proxy frames on a socket of the sandbox
}

// Sandbox is one VM and the containers in it. It is safe for concurrent use.
type Sandbox struct {
	opts   Options
	dir    store.Dir
	shares *share.Shares

	mu         sync.Mutex // guards the fields below
	state      State
	containers map[string]*Container
	booted     chan struct{} // closed when Boot has ended
	bootErr    error         // valid after booted
	stopped    chan struct{} // closed when Stop has ended
	lost       error         // why the VM was lost; valid after ended
	ended      chan struct{} // closed when it is known that and why the VM ends
	oomKilled  bool          // the host killed the VM for want of memory; valid after ended
	paused     bool          // the vCPUs stand still

	abortBoot context.CancelFunc
	creates   sync.WaitGroup // containers between enter and leave
	changes   chan struct{}  // has room for one element per command of change
	vm        hypervisor.VM  // set by boot as soon as it runs

	// Set by boot before Ready, and not changed afterwards.
	server       *proxy.Server
	client       *proxy.Client
	dialect      hyperstart.Dialect
	undo         undoStack
	network      *podnet.Network
	guestNetwork *guestNetwork
	cgroup       *hostcgroup.Group // nil when the sandbox has none of its own
	timing       Timing
}

// Timing has the instants of a boot.
type Timing struct {
	Begin   time.Time // Boot was called
	VM      hypervisor.Timeline
	Ready   time.Time // the guest said READY and its version
	Plugged time.Time // shares are there
	Network time.Time // interfaces are there
	Pod     time.Time // STARTPOD was acknowledged
}

// NewSandbox returns a sandbox that has taken nothing yet.
func NewSandbox(opts Options) *Sandbox {
	s := &Sandbox{
		opts:       opts,
		dir:        store.DirOf(opts.StateDir, opts.Namespace, opts.ID),
		containers: make(map[string]*Container),
		booted:     make(chan struct{}),
		stopped:    make(chan struct{}),
		ended:      make(chan struct{}),
		changes:    make(chan struct{}, maxChanges),
	}
	s.shares = share.New(share.Options{Files: s.dir.Files(), Shared: s.dir.Shared(), Stage: s.dir.Stage()})
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

// PID is the process id of the VMM, which stands for all processes of the
// sandbox on the host; 0 before the boot.
func (s *Sandbox) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vm == nil {
		return 0
	}
	return s.vm.PID()
}

// Timing returns the instants of the boot; zero before it has ended.
func (s *Sandbox) Timing() Timing {
	select {
	case <-s.booted:
		return s.timing
	default:
		return Timing{}
	}
}

// Container returns a container. Unknown ids are errdefs.ErrNotFound.
func (s *Sandbox) Container(id string) (*Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil && !c.unasked() {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
}

// Containers returns how many containers there are, also half-made ones.
func (s *Sandbox) Containers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers)
}

// EnsureReady boots the sandbox when nobody has, and waits until it is ready.
// ctx bounds the wait alone: the boot has its own deadline, so that a caller
// that gives up does not leave a VM half made.
func (s *Sandbox) EnsureReady(ctx context.Context, pod bundle.Pod) error {
	s.mu.Lock()
	if s.state == New {
		if err := s.opts.Failed; err != nil {
			s.mu.Unlock()
			return err
		}
		s.toLocked(Booting)
		bootCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		s.abortBoot = cancel
		go s.runBoot(bootCtx, pod)
	}
	s.mu.Unlock()
	select {
	case <-s.booted:
	case <-ctx.Done():
		return fmt.Errorf("boot sandbox %s: %w", s.opts.ID, ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.bootErr != nil:
		return s.bootErr
	case s.state != Ready:
		return fmt.Errorf("sandbox %s is %s: %w", s.opts.ID, s.state, s.lostLocked())
	}
	return nil
}

// lostLocked is the reason why the VM is not usable any more.
func (s *Sandbox) lostLocked() error {
	if s.lost != nil {
		return fmt.Errorf("%w: %w", s.lost, errdefs.ErrUnavailable)
	}
	return errdefs.ErrUnavailable
}

// Stop ends the VM, with the guest's help when it is ready, gives everything
// back and waits until that is done. It is idempotent. All processes of the
// sandbox are reported as exited.
func (s *Sandbox) Stop(ctx context.Context) error {
	s.mu.Lock()
	was := s.state
	switch was {
	case New:
		s.toLocked(Stopped)
		close(s.booted) // nobody will boot it any more
		close(s.stopped)
	case Booting, Ready:
		s.toLocked(Stopping)
		go s.runStop(context.WithoutCancel(ctx), was == Ready)
	case Stopping, Stopped:
	}
	s.mu.Unlock()
	select {
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop sandbox %s: %w", s.opts.ID, ctx.Err())
	}
}

// powerOffTimeout bounds the guest's orderly end; a guest that is slower loses
// nothing that was written through.
const powerOffTimeout = 2 * time.Second

// runStop ends the VM and cleans up. It runs once.
func (s *Sandbox) runStop(ctx context.Context, orderly bool) {
	if orderly {
		s.powerOff(ctx)
	}
	s.abortBoot()
	<-s.booted
	s.killVM(ctx)
	s.finish(ctx, errors.New("sandbox was stopped"))
}

// killVM ends the VMM, if there is one.
func (s *Sandbox) killVM(ctx context.Context) {
	s.mu.Lock()
	vm := s.vm
	s.mu.Unlock()
	if vm == nil {
		return
	}
	if err := vm.Kill(ctx); err != nil {
		log.G(ctx).WithError(err).Error("kill vm")
	}
}

// powerOff asks the guest to write its data and to end.
func (s *Sandbox) powerOff(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, powerOffTimeout)
	defer cancel()
	s.mu.Lock()
	paused := s.paused
	s.mu.Unlock()
	if paused {
		return // the vCPUs stand still
	}
	if _, err := s.client.Hyper(ctx, "destroypod", "", nil); err != nil {
		log.G(ctx).WithError(err).Debug("power off guest")
		return
	}
	if s.dialect == hyperstart.DialectCCv2 {
		return // its data was written when it answered; the rest of its end only takes time
	}
	select {
	case <-s.vm.Done():
	case <-ctx.Done():
	}
}

// toLocked moves the state; the caller holds s.mu. Every caller has looked at
// the state first, so a step that the table lacks is a defect in this package.
func (s *Sandbox) toLocked(next State) {
	if err := move(sandboxNext, "sandbox "+s.opts.ID, &s.state, next); err != nil {
		panic(err)
	}
}

// call runs one command in the guest under the configured deadline.
func (s *Sandbox) call(ctx context.Context, name, token string, data any) ([]byte, error) {
	s.mu.Lock()
	state, paused, lost := s.state, s.paused, s.lostLocked()
	s.mu.Unlock()
	if state != Ready {
		return nil, fmt.Errorf("%s: sandbox %s is %s: %w", name, s.opts.ID, state, lost)
	}
	if paused {
		return nil, fmt.Errorf("%s: sandbox %s is paused: %w", name, s.opts.ID, errdefs.ErrFailedPrecondition)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.VM.CallTimeout)
	defer cancel()
	answer, err := s.client.Hyper(ctx, name, token, data)
	return answer, fromGuest(err)
}

// maxChanges is how many commands that take long run at once: half of what a
// ccv2 guest takes before it refuses more. The rest is for signals and questions.
const maxChanges = 32

// change is call for a command that changes the guest. It waits for its turn.
// Then it is waited for when its caller has gone, too: the guest carries it out in
// any case, and what is known of the container must be what the guest has made
// of it.
func (s *Sandbox) change(ctx context.Context, name, token string, data any) error {
	select {
	case s.changes <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s: wait for %d earlier commands in the guest: %w", name, maxChanges, ctx.Err())
	}
	defer func() { <-s.changes }()
	_, err := s.call(context.WithoutCancel(ctx), name, token, data)
	return err
}
