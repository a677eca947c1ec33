package podvm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/cleanup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/blockdev"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/dnsrelay"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podnet"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/reclaim"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Config is the part of the configuration that makes the VM. Paths exist.
type Config struct {
	Spec      hypervisor.Spec // without ID, Dir and ports
	ShareType string          // "virtiofs" or "9p"
	VirtioFSD string          // path of the binary
	// HostMemoryMiB is what the programs beside the VM's memory may take where no
	// pod's cgroup bounds them; 0 is no limit.
	HostMemoryMiB int
	VhostNet      bool // the host's kernel carries the pod's frames, if it can
	Dialect       hyperstart.Dialect
	BootTimeout   time.Duration // VMM start to the start of the pod
	CallTimeout   time.Duration // one command in the guest
	ProxySocket   bool          // serve proxy frames on a socket of the sandbox
	ConsoleInput  bool          // an operator may type on the guest's console
}

// Options are what a Machine is made with.
type Options struct {
	Namespace string
	ID        string // of the sandbox
	StateDir  string // root of the directories of all sandboxes
	Source    Source
	Config    Config
	// ShimCgroup is where this process is to be while the VM runs, a client's own
	// group. Without it, the shim is in the sandbox's.
	ShimCgroup string
	// Serve, when set, lets others look at the machine, from a socket in the sandbox's
	// directory, until stop. Note is told what becomes of it. Neither may block.
	Serve func(dir string) (stop func() error, err error)
	Note  func(kind, text string)
	// Tap, when set, sees what passes between the host and the guest.
	Tap *wiretap.Tap
}

// Source has VMs to run pods in.
type Source interface {
	// Acquire returns a VM made after spec. It is the caller's, who ends it. refuse is
	// nil when its guest boots. Otherwise it goes on from where another one was: it
	// has said READY before, and needs random numbers of its own. When it does not
	// answer refuse is told why, unless that is no fault of where it has come from. limit is
	// how much memory, in bytes, the VM and this process may have: with none the VM boots.
	Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (vm hypervisor.VM, refuse func(cause error), err error)
}

// Releaser is a source that has a VM ready. Where none is acquired it lets go of it.
type Releaser interface{ Release() error }

// Cold is the source that starts a VMM for each pod.
type Cold struct{ Driver hypervisor.Driver }

// Acquire implements [Source].
func (c Cold) Acquire(ctx context.Context, spec hypervisor.Spec, _ int) (hypervisor.VM, func(error), error) {
	vm, err := c.Driver.Start(ctx, spec)
	return vm, nil, err
}

// Machine is the VM of one pod. All methods but Boot are safe for concurrent
// use; those that say so need a Boot that has succeeded.
type Machine struct {
	opts  Options
	dir   store.Dir
	undo  cleanup.Stack
	wg    sync.WaitGroup // all goroutines
	loss  loss
	vcpus vcpus

	exposed
	progress progress
	vm       current

	// Set by Boot and not changed afterwards.
	server  *proxy.Server
	guest   client.Guest
	network *podnet.Network
	dns     *dnsrelay.Relay
	cgroup  cgroup
	timing  Timing
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

// New returns a machine that has acquired nothing yet.
func New(opts Options) *Machine {
	dir := store.DirOf(opts.StateDir, opts.Namespace, opts.ID)
	m := &Machine{
		opts: opts, dir: dir, loss: loss{known: make(chan struct{})}, vcpus: vcpus{turn: make(chan struct{}, 1)},
		exposed: exposed{
			shares: share.New(share.Options{Files: dir.Files(), Shared: dir.Shared(), Stage: dir.Stage()}),
			disks:  blockdev.NewTable(opts.Config.CallTimeout),
		},
	}
	m.loss.ended = func(cause error) { blame(m); noteEnd(m, cause) }
	return m
}

// Dir is the path of the state directory.
func (m *Machine) Dir() string { return m.dir.Path() }

// ProxySocket is where proxy frames are served, when the configuration says so.
func (m *Machine) ProxySocket() string { return filepath.Join(m.dir.VM(), "proxy.sock") }

// PID is the process id of the VMM; 0 before its start.
func (m *Machine) PID() int {
	if vm := m.running(); vm != nil {
		return vm.PID()
	}
	return 0
}

// running is the VM, nil before its start. It may have ended.
func (m *Machine) running() hypervisor.VM {
	m.vm.mu.Lock()
	defer m.vm.mu.Unlock()
	return m.vm.vm
}

// current is the VM at this moment: one that goes on from a template, and is of no use, is
// replaced.
type current struct {
	mu   sync.Mutex    // guards what follows
	vm   hypervisor.VM // nil before its start
	kept bool          // it is the pod's: its loss is the pod's
}

func (c *current) set(vm hypervisor.VM) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vm = vm
}

// keep makes the VM the pod's, and returns it.
func (c *current) keep() hypervisor.VM {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = true
	return c.vm
}

// keeps reports whether a VM is the pod's.
func (c *current) keeps(vm hypervisor.VM) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept && c.vm == vm
}

// Guest is the client of the guest. It needs a Boot that has succeeded.
func (m *Machine) Guest() client.Guest { return m.guest }

// Timing returns the instants of the boot. It needs a Boot that has succeeded.
func (m *Machine) Timing() Timing { return m.timing }

// Lost is closed when the VM has ended, or something that it depends on.
func (m *Machine) Lost() <-chan struct{} { return m.loss.known }

// Err is why; nil before Lost is closed.
func (m *Machine) Err() error { return m.loss.err() }

// gate is why no command can be sent to the guest; nil when one can.
func (m *Machine) gate() error {
	if cause := m.loss.err(); cause != nil {
		return fmt.Errorf("sandbox %s: %w: %w", m.opts.ID, cause, errdefs.ErrUnavailable)
	}
	if m.vcpus.isPaused() {
		return fmt.Errorf("sandbox %s is paused, resume it first: %w", m.opts.ID, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Console returns the last lines of the guest's console, for a log entry.
func (m *Machine) Console() []string {
	if vm := m.running(); vm != nil {
		return vm.ConsoleTail(consoleLines)
	}
	return nil
}

// RefreshNetwork returns when the guest has what is in the pod's network
// namespace now. It needs a Boot that has succeeded.
func (m *Machine) RefreshNetwork(ctx context.Context) error {
	if err := m.network.Refresh(ctx); err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	return nil
}

// Placeholder makes what stands for a container on the host, in the pod's network
// namespace. The caller closes it. It needs a Boot that has succeeded.
func (m *Machine) Placeholder(c placeholder.Container) (*placeholder.Placeholder, error) {
	if m.cgroup.Group != nil {
		c.Room = m.cgroup.room
		if m.opts.ShimCgroup != "" { // what the shim starts is not in the sandbox's
			c.Place = m.cgroup.Add
		}
	}
	return placeholder.New(m.network.File(), c)
}

// Disconnect ends the connection to the guest, and all sessions with it. It is
// idempotent.
func (m *Machine) Disconnect() {
	if m.server != nil {
		_ = m.server.Close() // it has no errors
	}
}

// Release releases everything that Boot has acquired, ends the VMM if it runs,
// and joins all goroutines, within [reclaim.Timeout]. Doing it again is not an
// error.
func (m *Machine) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reclaim.Timeout)
	defer cancel()
	m.Disconnect()
	err := m.undo.Run(ctx)
	if m.guest != nil {
		err = errors.Join(err, m.guest.Close())
	}
	ended := make(chan struct{})
	go func() { // ends with the processes, which were killed above
		defer close(ended)
		m.wg.Wait()
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("release sandbox %s: a process of it has not ended: %w", m.opts.ID, ctx.Err()))
	}
}
