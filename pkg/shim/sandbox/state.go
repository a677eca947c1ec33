package sandbox

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// State is where a sandbox is in its life.
type State uint8

// States of a sandbox.
const (
	StateNew      State = iota // nothing is acquired yet
	StateBooting               // the boot runs
	StateReady                 // the guest accepts commands
	StateStopping              // the VM ends, is lost, or did not boot
	StateStopped               // the VM is gone, everything was released
)

// ContainerState is where a container is in its life.
type ContainerState uint8

// States of a container.
const (
	ContainerCreating ContainerState = iota // Create runs; the id is reserved
	ContainerCreated
	ContainerStarting
	ContainerRunning
	ContainerPausing
	ContainerPaused
	ContainerResuming
	ContainerExited
	ContainerDeleted
)

// ProcessState is where an exec process is in its life. Of a container's init
// process it says only whether it has exited; the rest is the container's state.
type ProcessState uint8

// States of an exec process.
const (
	ProcessCreated ProcessState = iota
	ProcessStarting
	ProcessRunning
	ProcessExited
	ProcessDeleted
)

var (
	stateNames          = [...]string{"new", "booting", "ready", "stopping", "stopped"}
	containerStateNames = [...]string{"creating", "created", "starting", "running", "pausing", "paused", "resuming", "exited", "deleted"}
	processStateNames   = [...]string{"created", "starting", "running", "exited", "deleted"}
)

func (s State) String() string          { return stateNames[s] }
func (s ContainerState) String() string { return containerStateNames[s] }
func (s ProcessState) String() string   { return processStateNames[s] }

// The transition tables: which states may follow each state.
var (
	sandboxNext = map[State][]State{
		StateNew:      {StateBooting, StateStopped},
		StateBooting:  {StateReady, StateStopping},
		StateReady:    {StateStopping},
		StateStopping: {StateStopped},
		StateStopped:  {},
	}
	containerNext = map[ContainerState][]ContainerState{
		ContainerCreating: {ContainerCreated},
		ContainerCreated:  {ContainerStarting, ContainerExited},
		ContainerStarting: {ContainerRunning, ContainerExited},
		ContainerRunning:  {ContainerPausing, ContainerExited},
		ContainerPausing:  {ContainerPaused, ContainerRunning, ContainerExited},
		ContainerPaused:   {ContainerResuming, ContainerExited},
		ContainerResuming: {ContainerRunning, ContainerPaused, ContainerExited},
		ContainerExited:   {ContainerDeleted},
		ContainerDeleted:  {},
	}
	processNext = map[ProcessState][]ProcessState{
		ProcessCreated:  {ProcessStarting, ProcessExited},
		ProcessStarting: {ProcessRunning, ProcessExited},
		ProcessRunning:  {ProcessExited},
		ProcessExited:   {ProcessDeleted},
		ProcessDeleted:  {},
	}
)

// TransitionError says that something is not possible in the present state.
// Its class is errdefs.ErrFailedPrecondition.
type TransitionError struct {
	Object   string // "sandbox x", "container y", "process z"
	From, To fmt.Stringer
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("%s is %s and cannot become %s", e.Object, e.From, e.To)
}

// Unwrap returns the class of the error.
func (e *TransitionError) Unwrap() error { return errdefs.ErrFailedPrecondition }

// move returns nil and sets *state when the table allows it. The caller holds
// the lock that guards *state.
func move[S interface {
	comparable
	fmt.Stringer
}](table map[S][]S, object string, state *S, to S) error {
	if slices.Contains(table[*state], to) {
		*state = to
		return nil
	}
	return &TransitionError{Object: object, From: *state, To: to}
}

// toLocked moves the state; the caller holds s.mu, and has looked at the state
// first, so a step that the table lacks is a defect in this package.
func (s *Sandbox) toLocked(next State) {
	if err := move(sandboxNext, "sandbox "+s.opts.ID, &s.state, next); err != nil {
		panic(err)
	}
}

// toLocked moves the state; the caller holds c.mu.
func (c *Container) toLocked(next ContainerState) error {
	err := move(containerNext, "container "+c.ID, &c.state, next)
	c.cond.Broadcast()
	return err
}

// toLocked moves the state; the caller holds p.mu.
func (p *Process) toLocked(next ProcessState) error {
	err := move(processNext, p.String(), &p.state, next)
	p.cond.Broadcast()
	return err
}
