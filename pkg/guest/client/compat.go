package client

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client/internal/compatnet"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client/internal/compatspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// compat is an original guest: hyperhq's, or one of Clear Containers'. It knows
// no OCI specification and gets what its commands can say, with the keys that
// it accepts and no others. It creates and starts a container in one command,
// and learns of the network by STARTPOD.
type compat struct {
	*caller

	mu         sync.Mutex // guards the fields below
	network    compatnet.Network
	containers map[string]*compatContainer
}

// compatContainer is a container that was created.
type compatContainer struct {
	request hyperstart.NewContainerRequest
	process *specs.Process
	find    func(context.Context, *specs.Process) error // its programs; may be nil
	session *compatSession
	state   compatState
}

func newCompat(c *caller) *compat {
	return &compat{caller: c, containers: make(map[string]*compatContainer)}
}

// Close implements [Guest]. Nothing runs in the background.
func (c *compat) Close() error { return nil }

// StartPod implements [Guest].
func (c *compat) StartPod(ctx context.Context, pod Pod) error {
	if err := c.lacks(compatspec.MissingOfPod(pod.Sysctls, pod.ShmSize, c.dialect)); err != nil {
		return err
	}
	c.mu.Lock()
	interfaces, routes, dropped := c.network.Request(c.dialect)
	c.mu.Unlock()
	if len(dropped) > 0 {
		c.warn(fmt.Sprintf("a guest of dialect %s cannot have: %s", c.dialect, strings.Join(dropped, ", ")))
	}
	return c.startPod(ctx, hyperstart.StartPodRequest{
		Hostname: pod.Hostname, DNS: pod.DNS, Interfaces: interfaces, Routes: routes,
	})
}

// StopPod implements [Guest]. These guests answer before they write their data.
func (c *compat) StopPod(ctx context.Context) (synced bool, err error) {
	return false, c.stopPod(ctx)
}

// SetInterface implements [Guest].
func (c *compat) SetInterface(_ context.Context, i hyperstart.Interface) error {
	if c.podStarted.Load() {
		return c.notImplemented("setupinterface")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.network.SetInterface(i)
	return nil
}

// SetRoutes implements [Guest].
func (c *compat) SetRoutes(_ context.Context, r hyperstart.Routes) error {
	if c.podStarted.Load() {
		return c.notImplemented("setuproute")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.network.SetRoutes(r.Routes)
	return nil
}

// OpenSession implements [Guest].
func (c *compat) OpenSession(ctx context.Context) (Session, error) {
	s, err := c.frames.Connect(ctx)
	if err != nil {
		return nil, Classify(err)
	}
	return &compatSession{session: session{frames: s}, lostSignals: c.dialect != hyperstart.DialectClearGo}, nil
}

// CreateContainer keeps the container until it is started.
func (c *compat) CreateContainer(_ context.Context, s Session, r Container) error {
	session, ok := s.(*compatSession)
	if !ok {
		return errForeignSession
	}
	created := &compatContainer{session: session, process: r.Spec.Process, find: r.FindProgram, request: hyperstart.NewContainerRequest{
		ID:      r.ID,
		RootFS:  "rootfs",
		Image:   filepath.Dir(strings.TrimPrefix(r.Spec.Root.Path, hyperstart.ShareMount+"/")), // the directory below the share
		Process: compatspec.Process(r.Spec.Process, hyperstart.InitProcess, r.Terminal, c.dialect),
	}}
	ask := compatspec.Ask{Spec: r.Spec, Pause: r.Pause, SharesIPC: r.SharesIPC}
	for _, b := range r.Binds {
		created.request.FSMap = append(created.request.FSMap, hyperstart.FSMap{Source: b.Source, Path: b.Destination, ReadOnly: b.ReadOnly})
		ask.Binds = append(ask.Binds, b.Destination)
	}
	if err := c.lacks(compatspec.Missing(ask, c.dialect)); err != nil {
		return err
	}
	if unheeded := compatspec.Unheeded(ask, c.dialect); unheeded != "" {
		c.warn(fmt.Sprintf("container %s: with a guest of dialect %s these have no effect: %s", r.ID, c.dialect, unheeded))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.containers[r.ID] != nil {
		return fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
	}
	c.containers[r.ID] = created
	return nil
}

// lacks refuses what there is a name for.
func (c *compat) lacks(what string) error {
	if what == "" {
		return nil
	}
	return fmt.Errorf("%s cannot be had from a guest of dialect %s; use the ccv2 guest image: %w", what, c.dialect, errdefs.ErrNotImplemented)
}

// StartContainer creates and starts the container.
func (c *compat) StartContainer(ctx context.Context, id string) error {
	c.mu.Lock()
	created := c.containers[id]
	c.mu.Unlock()
	if created == nil {
		return fmt.Errorf("container %s is not created: %w", id, errdefs.ErrFailedPrecondition)
	}
	if err := created.findProgram(ctx, created.process); err != nil {
		return err
	}
	c.mu.Lock()
	err := created.to(compatStarting)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = c.call(context.WithoutCancel(ctx), "newcontainer", created.session.frames.Token(), created.request)
	if err = c.notRun(created.process, err); err == nil {
		c.sendSize(ctx, created.session)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = created.to(compatStarted) // it is starting
	return err
}

// findProgram refuses a program that is not there: hyperhq's guest only ends with 127, that of Clear Containers in C altogether.
func (c *compatContainer) findProgram(ctx context.Context, p *specs.Process) error {
	if c == nil || c.find == nil {
		return nil
	}
	return c.find(ctx, p)
}

// notRun names the program that a guest has not run, which the C guests do not.
func (c *compat) notRun(p *specs.Process, err error) error {
	if err == nil || c.dialect == hyperstart.DialectClearGo {
		return err
	}
	return fmt.Errorf("run %q: %w", p.Args[0], err)
}

// RemoveContainer implements [Guest]. Hyperhq's guest removes containers by itself.
func (c *compat) RemoveContainer(ctx context.Context, id string) error {
	c.mu.Lock()
	created := c.containers[id]
	unknown := created != nil && (created.state == compatCreated || created.state == compatKilled)
	delete(c.containers, id)
	c.mu.Unlock()
	if unknown || c.dialect == hyperstart.DialectHyperhq {
		return nil
	}
	_, err := c.call(ctx, "removecontainer", "", hyperstart.ContainerRef{Container: id})
	return err
}

// Exec implements [Guest].
func (c *compat) Exec(ctx context.Context, s Session, e Exec) error {
	if e.Container == "" {
		return c.notImplemented("exec in the guest itself")
	}
	session, ok := s.(*compatSession)
	if !ok {
		return errForeignSession
	}
	if err := c.lacks(compatspec.Missing(compatspec.OfProcess(e.Process), c.dialect)); err != nil {
		return err
	}
	c.mu.Lock()
	created := c.containers[e.Container]
	c.mu.Unlock()
	refused := created.findProgram(ctx, e.Process)
	if _, hint := ExitStatus(refused); refused != nil && (!hint || c.dialect != hyperstart.DialectClearGo) {
		return refused
	}
	process := compatspec.Process(e.Process, processIDOf(e.ID), e.Terminal, c.dialect)
	if err := c.mutate(ctx, "execcmd", session.frames.Token(), hyperstart.ExecCmdRequest{Container: e.Container, Process: process}); err != nil && refused != nil {
		return fmt.Errorf("%w (the guest: %s)", refused, err.Error())
	} else if err != nil {
		return c.notRun(e.Process, err)
	}
	c.sendSize(ctx, session)
	return nil
}

// sendSize gives the terminal of a process that was started the size that was
// kept. That it cannot be set is no reason for the process not to run.
func (c *compat) sendSize(ctx context.Context, s *compatSession) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := s.start(ctx); err != nil {
		c.warn(fmt.Sprintf("resize terminal: %s", err))
	}
}

// Signal implements [Guest]. How a signal goes depends on how far the guest is
// with the container.
func (c *compat) Signal(ctx context.Context, s Session, t Target, signal int) error {
	session, ok := s.(*compatSession)
	if !ok {
		return errForeignSession
	}
	if signal == int(unix.SIGKILL) {
		session.noteKilled()
	}
	state := compatStarted
	if t.ExecID == "" {
		state = c.claimSignal(t.Container, signal)
	}
	ends := signal == int(unix.SIGKILL) || signal == int(unix.SIGTERM)
	switch {
	case state == compatCreated, state == compatKilled && !ends:
		return fmt.Errorf("container %s is not started: %w", t.Container, errdefs.ErrFailedPrecondition)
	case state == compatKilled: // the proxy answers with an exit
		session.noteKilledBy(signal)
		return c.signalSession(ctx, session.frames, signal)
	case t.ExecID == "" && (t.All || !fitsFrame(signal) || state == compatStarting):
		// A command comes after the one that starts the container.
		return c.killContainer(ctx, t, signal)
	case !fitsFrame(signal):
		return c.signalProcess(ctx, t, signal)
	}
	return c.signalSession(ctx, session.frames, signal)
}

// claimSignal returns how far the guest is with a container. A container that
// it does not know of is killed by the two signals that end every process.
func (c *compat) claimSignal(id string, signal int) compatState {
	c.mu.Lock()
	defer c.mu.Unlock()
	created := c.containers[id]
	if created == nil {
		return compatStarted
	}
	if signal == int(unix.SIGKILL) || signal == int(unix.SIGTERM) {
		_ = created.to(compatKilled) // unless it was started
	}
	return created.state
}

// Update implements [Guest].
func (c *compat) Update(context.Context, string, *specs.LinuxResources) error {
	return c.notImplemented("updatecontainer")
}

// Pause implements [Guest].
func (c *compat) Pause(context.Context, string) error { return c.notImplemented("pausecontainer") }

// Resume implements [Guest].
func (c *compat) Resume(context.Context, string) error { return c.notImplemented("resumecontainer") }

// Stats implements [Guest].
func (c *compat) Stats(context.Context, string) (*hyperstart.Stats, error) {
	return nil, c.notImplemented("statscontainer")
}

// Processes implements [Guest].
func (c *compat) Processes(context.Context, string) ([]ProcessInfo, error) {
	return nil, c.notImplemented("listprocesses")
}
