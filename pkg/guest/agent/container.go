package agent

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

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
func (s containerState) String() string {
	if s < stateCount {
		return stateNames[s]
	}
	return fmt.Sprintf("in state %d", uint8(s))
}

// transitions has a bit for every state that may follow. An init can end in
// every state that has one.
var transitions = [stateCount]uint16{
	stateCreating: 1<<stateCreated | 1<<stateStopped,
	stateCreated:  1<<stateStarting | 1<<stateStopped,
	stateStarting: 1<<stateRunning | 1<<stateStopped,
	stateRunning:  1<<statePausing | 1<<stateStopped,
	statePausing:  1<<statePaused | 1<<stateRunning | 1<<stateStopped,
	statePaused:   1<<stateResuming | 1<<stateStopped,
	stateResuming: 1<<stateRunning | 1<<statePaused | 1<<stateStopped,
	stateStopped:  1 << stateRemoving,
	stateRemoving: 1 << stateStopped, // removal failed and may be tried again
}

// container is one container of the pod.
type container struct {
	id    string
	dir   string
	group cgroups.Group

	update sync.Mutex // held during an update

	mu    sync.Mutex // guards what follows
	state containerState
	init  *process
	procs map[string]*process // by id, the init included
}

func newContainerState(id string) *container {
	return &container{
		id: id, dir: filepath.Join(layout.ContainersDir, id), group: cgroups.Group(filepath.Join(layout.CgroupBase, id)),
		procs: map[string]*process{},
	}
}

// idPattern is containerd's rule for identifiers; ids become file names here.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func checkID(kind, id string) error {
	if !idPattern.MatchString(id) {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "%s id %q is not valid", kind, id)
	}
	return nil
}

func (c *container) pidFile(process string) string {
	return filepath.Join(c.dir, "pid-"+process)
}

// to moves the container on. It fails when the present state does not allow it.
func (c *container) to(next containerState) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if transitions[c.state]&(1<<next) == 0 {
		return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.state)
	}
	c.state = next
	return nil
}

// settle ends a claim unless the init has ended meanwhile.
func (c *container) settle(claim, next containerState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == claim {
		c.state = next
	}
}

func (c *container) current() containerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// begin reserves the id of an exec.
func (c *container) begin(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateRunning && c.state != stateCreated {
		return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.state)
	}
	switch old, ok := c.procs[p.id]; {
	case ok && old.told.Load():
		old.io.Discard() // the host has forgotten it, only its descendants live
	case ok:
		return hyperstart.Errorf(hyperstart.ClassAlreadyExists, "process %s of container %s exists", p.id, c.id)
	}
	c.procs[p.id] = p
	return nil
}

// exited notes the end of a process.
func (c *container) exited(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.init && transitions[c.state]&(1<<stateStopped) != 0 {
		c.state = stateStopped
	}
}

// forget frees the id of an exec. The init stays until the container goes.
func (c *container) forget(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p != c.init && c.procs[p.id] == p {
		delete(c.procs, p.id)
	}
}

// process returns a process by id.
func (c *container) process(id string) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.procs[id]
	if !ok || p.pid == 0 {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "no process %s in container %s", id, c.id)
	}
	return p, nil
}

// execs returns all processes but the init, in the order of their ids.
func (c *container) execs() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*process
	for _, p := range c.procs {
		if p != c.init {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *process) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return all
}

// processes returns a copy of the table of processes.
func (c *container) processes() map[string]*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.procs)
}

// processIDs maps pids to the ids that the host gave.
func (c *container) processIDs() map[int]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := map[int]string{}
	for id, p := range c.procs {
		if p.pid != 0 && p.alive() {
			ids[p.pid] = id
		}
	}
	return ids
}

// setPID makes a started process visible to signals and lists.
func (c *container) setPID(p *process, pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.pid = pid
}

// initPID is of the first process, which lives as long as begin succeeds.
func (c *container) initPID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.init.pid
}

// find returns a container by id.
func (a *Agent) find(id string) (*container, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.containers[id]
	if !ok {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "no container %s", id)
	}
	return c, nil
}

// reserve adds a container in state creating.
func (a *Agent) reserve(id string) (*container, error) {
	if err := checkID("container", id); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.containers[id]; ok {
		return nil, hyperstart.Errorf(hyperstart.ClassAlreadyExists, "container %s exists", id)
	}
	c := newContainerState(id)
	a.containers[id] = c
	return c, nil
}

func (a *Agent) drop(c *container) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.containers, c.id)
}

func (a *Agent) all() []*container {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*container, 0, len(a.containers))
	for _, c := range a.containers {
		all = append(all, c)
	}
	return all
}
