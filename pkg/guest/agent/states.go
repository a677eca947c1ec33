package agent

import (
	"fmt"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// The state of the pod, of a container and of a process is written in this file
// only, by the function that looks into its table. TestStateWriters holds the
// package to it.

// podState is where the pod is in its life.
type podState uint8

// The states. A start that fails leads back to podNew.
const (
	podNew podState = iota
	podStarting
	podStarted
	podDestroyed
	podStateCount
)

var podStateNames = [podStateCount]string{"not started", "being started", "already started", "destroyed"}

// String returns what an error message says of the pod.
func (s podState) String() string { return nameOf(podStateNames[:], s) }

var podTransitions = [podStateCount]uint16{
	podNew:       1<<podStarting | 1<<podDestroyed,
	podStarting:  1<<podStarted | 1<<podNew | 1<<podDestroyed,
	podStarted:   1 << podDestroyed,
	podDestroyed: 1 << podDestroyed, // a command that is sent again
}

// pod is what all containers share.
type pod struct {
	mu    sync.Mutex // guards state
	state podState
}

// to moves the pod to another state. It fails when the present one does not allow
// it.
func (p *pod) to(next podState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if podTransitions[p.state]&(1<<next) == 0 {
		return p.refusalLocked(next == podStarting)
	}
	p.state = next
	return nil
}

// started fails when the pod has not been started, or is destroyed.
func (p *pod) started() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != podStarted {
		return p.refusalLocked(false)
	}
	return nil
}

func (p *pod) refusalLocked(start bool) error {
	class := hyperstart.ClassFailedPrecondition
	if start && p.state == podStarted {
		class = hyperstart.ClassAlreadyExists
	}
	return hyperstart.Errorf(class, "pod is %s", p.state)
}

// containerState is where a container is in its life.
type containerState uint8

// The states. Starting, pausing and so on are claims: while one operation has
// the container, a second one is refused, but it can always be killed.
const (
	stateCreating containerState = iota
	stateCreated
	stateStarting
	stateRunning
	statePausing
	statePaused
	stateResuming
	stateStopped
	stateRemoving
	stateCount
)

var stateNames = [stateCount]string{
	"being created", "created", "being started", "running", "being paused",
	"paused", "being resumed", "stopped", "being removed",
}

// String returns what an error message says of the container.
func (s containerState) String() string { return nameOf(stateNames[:], s) }

// transitions has a bit for every state that may follow. An init process can end
// in every state that has one.
var transitions = [stateCount]uint16{
	stateCreating: 1 << stateCreated,
	stateCreated:  1<<stateStarting | 1<<stateStopped,
	stateStarting: 1<<stateRunning | 1<<stateStopped,
	stateRunning:  1<<statePausing | 1<<stateStopped,
	statePausing:  1<<statePaused | 1<<stateRunning | 1<<stateStopped,
	statePaused:   1<<stateResuming | 1<<stateStopped,
	stateResuming: 1<<stateRunning | 1<<statePaused | 1<<stateStopped,
	stateStopped:  1 << stateRemoving,
	stateRemoving: 1 << stateStopped, // removal failed and may be tried again
}

// toLocked moves the container to another state. It fails when the present one
// does not allow it.
func (c *container) toLocked(next containerState) error {
	if transitions[c.state]&(1<<next) == 0 {
		return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.state)
	}
	c.state = next
	return nil
}

// processState is where a process is in its life.
type processState uint8

// The states.
const (
	processStarting processState = iota // its id is reserved, the OCI runtime is at work
	processRunning                      // it can be signalled
	processExited                       // it was reaped; its output may be under way
	processReported                     // the host knows of its exit and may use the id again
	processFinished                     // nothing of it is left, or it was never started
	processStateCount
)

var processStateNames = [processStateCount]string{"being started", "running", "exited", "reported", "finished"}

// String returns what an error message says of the process.
func (s processState) String() string { return nameOf(processStateNames[:], s) }

var processTransitions = [processStateCount]uint16{
	processStarting: 1<<processRunning | 1<<processFinished,
	processRunning:  1 << processExited,
	processExited:   1 << processReported,
	processReported: 1 << processFinished,
}

// to moves the process to another state. It reports whether the present one allows
// it.
func (p *process) to(next processState) bool {
	p.container.mu.Lock()
	defer p.container.mu.Unlock()
	return p.toLocked(next)
}

// toLocked is to with the container's mu held. A container is stopped when its init
// process has exited.
func (p *process) toLocked(next processState) bool {
	if processTransitions[p.state]&(1<<next) == 0 {
		return false
	}
	p.state = next
	switch next {
	case processExited:
		close(p.exited)
		if p == p.container.init {
			_ = p.container.toLocked(stateStopped) // every state with an init process allows it
		}
	case processFinished:
		close(p.finished)
	case processStarting, processRunning, processReported, processStateCount:
	}
	return true
}

// nameOf returns the name of a state.
func nameOf[S ~uint8](names []string, s S) string {
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("in state %d", uint8(s))
}
