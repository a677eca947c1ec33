package fake

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Names of the operations, for [Runtime.Fail], [Runtime.Hold] and [Runtime.Calls].
const (
	Create = "create"
	Exec   = "exec"
	Spawn  = "spawn"
	Start  = "start"
	Pause  = "pause"
	Resume = "resume"
	Update = "update"
	Delete = "delete"
)

// firstPID is above what processes of a machine have, so that a fake pid that is
// signalled by mistake hits nobody.
const firstPID = 1 << 24

// Runtime is an OCI runtime in memory.
type Runtime struct {
	mu       sync.Mutex // guards what follows
	lastPID  int
	procs    map[string]map[string]*Process // by container and id
	calls    []string
	failures map[string]error
	holds    map[string]hold
}

// hold is where the calls of an operation wait.
type hold struct {
	entered  chan struct{}
	released chan struct{}
}

// New returns a runtime without containers.
func New() *Runtime {
	return &Runtime{
		lastPID: firstPID, procs: map[string]map[string]*Process{},
		failures: map[string]error{}, holds: map[string]hold{},
	}
}

// Fail lets the next call of an operation fail. It does nothing else then.
func (r *Runtime) Fail(op string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures[op] = err
}

// Hold lets the calls of an operation wait until release is called. entered gets a
// value for each of them.
func (r *Runtime) Hold(op string) (entered <-chan struct{}, release func()) {
	h := hold{entered: make(chan struct{}, 64), released: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds[op] = h
	return h.entered, sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.holds, op)
		close(h.released)
	})
}

// Calls returns the operations so far, each with its container and, for Exec, the
// id of the process.
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Process returns a process by its ids. The id of a spawned one is its arguments,
// with spaces between them. It returns nil when there is none.
func (r *Runtime) Process(container, id string) *Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.procs[container][id]
}

// all returns the processes of a container.
func (r *Runtime) all(container string) []*Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*Process
	for _, p := range r.procs[container] {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Process) int { return a.PID - b.PID })
	return all
}

// begin notes a call, waits if it is held, and returns its failure.
func (r *Runtime) begin(ctx context.Context, op string, names ...string) error {
	r.mu.Lock()
	r.calls = append(r.calls, op+" "+strings.Join(names, " "))
	h, held := r.holds[op]
	r.mu.Unlock()
	if held {
		h.entered <- struct{}{}
		select {
		case <-h.released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.failures[op]
	delete(r.failures, op)
	return err
}

// add makes a process.
func (r *Runtime) add(container, id string, io ociruntime.IO) (*ociruntime.Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastPID++
	p := &Process{PID: r.lastPID, exit: make(chan int, 1)}
	if err := p.open(io); err != nil {
		return nil, err
	}
	if r.procs[container] == nil {
		r.procs[container] = map[string]*Process{}
	}
	r.procs[container][id] = p
	return ociruntime.NewChild(p.PID, func() int { return <-p.exit }, p.Signal), nil
}

// Create makes the init process of a container.
func (r *Runtime) Create(ctx context.Context, c ociruntime.Container, _ string, io ociruntime.IO) (*ociruntime.Child, error) {
	if err := r.begin(ctx, Create, c.ID); err != nil {
		return nil, err
	}
	return r.add(c.ID, hyperstart.InitProcess, io)
}

// Exec makes an exec process.
func (r *Runtime) Exec(ctx context.Context, c ociruntime.Container, id string, spec *specs.Process, io ociruntime.IO) (*ociruntime.Child, error) {
	if err := r.begin(ctx, Exec, c.ID, id); err != nil {
		return nil, err
	}
	child, err := r.add(c.ID, id, io)
	if p := r.Process(c.ID, id); p != nil {
		p.Spec = spec
	}
	return child, err
}

// Spawn makes a process of the agent's own in the container whose control group has
// its id as name.
func (r *Runtime) Spawn(cgroup string, args []string, io ociruntime.IO) (*ociruntime.Child, error) {
	id, container := strings.Join(args, " "), filepath.Base(cgroup)
	if err := r.begin(context.Background(), Spawn, container, id); err != nil {
		return nil, err
	}
	return r.add(container, id, io)
}

// Run starts a process of the guest itself, by the name of its program.
func (r *Runtime) Run(cgroup string, spec *specs.Process, io ociruntime.IO) (*ociruntime.Child, error) {
	return r.Spawn(cgroup, spec.Args, io)
}

// Start fails when the init process has ended.
func (r *Runtime) Start(ctx context.Context, c ociruntime.Container) error {
	return r.change(ctx, Start, c)
}

// Pause fails when the init process has ended.
func (r *Runtime) Pause(ctx context.Context, c ociruntime.Container) error {
	return r.change(ctx, Pause, c)
}

// Resume fails when the init process has ended.
func (r *Runtime) Resume(ctx context.Context, c ociruntime.Container) error {
	return r.change(ctx, Resume, c)
}

// Update fails when the init process has ended.
func (r *Runtime) Update(ctx context.Context, c ociruntime.Container, _ *specs.LinuxResources) error {
	return r.change(ctx, Update, c)
}

func (r *Runtime) change(ctx context.Context, op string, c ociruntime.Container) error {
	if err := r.begin(ctx, op, c.ID); err != nil {
		return err
	}
	if init := r.Process(c.ID, hyperstart.InitProcess); init == nil || init.ended() {
		return fmt.Errorf("%s: container %s does not run", op, c.ID)
	}
	return nil
}

// Delete removes a container. Without force its processes must have ended.
func (r *Runtime) Delete(ctx context.Context, c ociruntime.Container, force bool) error {
	if err := r.begin(ctx, Delete, c.ID); err != nil {
		return err
	}
	for _, p := range r.all(c.ID) {
		if !force && !p.ended() {
			return errors.New("delete: a process runs")
		}
		p.Exit(killed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.procs, c.ID)
	return nil
}
