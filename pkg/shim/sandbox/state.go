package sandbox

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// State is where a sandbox is in its life.
type State uint8

// States of a sandbox. Any state may become Stopped when the VM is lost.
const (
	New      State = iota // nothing taken yet
	Booting               // Boot runs
	Ready                 // the guest accepts commands
	Stopping              // Stop runs
	Stopped               // the VM is gone, everything was given back
)

// ContainerState is where a container is in its life.
type ContainerState uint8

// States of a container.
const (
	Creating ContainerState = iota // Create runs; the id is taken
	Created
	Starting
	Running
	Pausing
	Paused
	Resuming
	Exited
	Deleted
)

// ProcessState is where an additional process is in its life. A container's
// first process follows the state of the container.
type ProcessState uint8

// States of an additional process.
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
		New:      {Booting, Stopped},
		Booting:  {Ready, Stopping, Stopped},
		Ready:    {Stopping, Stopped},
		Stopping: {Stopped},
		Stopped:  {},
	}
	containerNext = map[ContainerState][]ContainerState{
		Creating: {Created},
		Created:  {Starting, Exited},
		Starting: {Running, Exited},
		Running:  {Pausing, Exited},
		Pausing:  {Paused, Running, Exited},
		Paused:   {Resuming, Exited},
		Resuming: {Running, Paused, Exited},
		Exited:   {Deleted},
		Deleted:  {},
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
