package agent

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// container is one container of the pod.
type container struct {
	id     string
	owner  *containers
	cgroup string // absolute path
	group  Group  // of cgroup
	oci    ociruntime.Container

	update sync.Mutex // held during an update

	mu    sync.Mutex // guards what follows, and the states of the processes
	state containerState
	init  *process            // nil while the container is being created
	procs map[string]*process // by id, the init process included
}

// to moves the container to another state. It fails when the present one does not
// allow it.
func (c *container) to(next containerState) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toLocked(next)
}

// complete ends the claim of an operation, unless the init process has ended
// meanwhile.
func (c *container) complete(claim, next containerState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == claim {
		_ = c.toLocked(next) // what follows a claim is in the table
	}
}

func (c *container) current() containerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// created adds the init process.
func (c *container) created(p *process, child *ociruntime.Child) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.toLocked(stateCreated); err != nil {
		return err
	}
	c.init, c.procs[p.id], p.child = p, p, child
	p.toLocked(processRunning)
	return nil
}

// reserve reserves the id of an exec process.
func (c *container) reserve(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateRunning && c.state != stateCreated {
		return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.state)
	}
	switch old, ok := c.procs[p.id]; {
	case ok && old.state == processReported:
		old.io.Discard() // the host has released it, only its descendants live
	case ok:
		return hyperstart.Errorf(hyperstart.ClassAlreadyExists, "process %s of container %s exists", p.id, c.id)
	}
	c.procs[p.id] = p
	return nil
}

// started makes an exec process visible to signals and lists.
func (c *container) started(p *process, child *ociruntime.Child) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.child = child
	p.toLocked(processRunning)
}

// release frees the id of an exec process. The init process stays until the
// container is removed.
func (c *container) release(p *process) {
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
	if !ok || p.state == processStarting {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "no process %s in container %s", id, c.id)
	}
	return p, nil
}

// execs returns all exec processes in the order of their ids.
func (c *container) execs() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*process
	for _, p := range c.procs {
		if p != c.init {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *process) int { return strings.Compare(a.id, b.id) })
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
		if p.state == processRunning {
			ids[p.child.PID] = id
		}
	}
	return ids
}
