package sandboxtest

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/exposure"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// ErrLost is why a machine is lost that has died.
var ErrLost = errors.New("vm ended by itself: it died")

// VMMPID is the pid of the VMM, a process that does not exist.
const VMMPID = 4_000_000

// Machine is a [sandbox.Machine] in memory. Its zero value is not usable.
type Machine struct {
	Agent *guesttest.Guest
	// OnStep, when set, is called before each step of the machine, such as
	// "boot", "pause" or "kill"; its error is the step's. It may block.
	OnStep func(ctx context.Context, step string) error

	lost  chan struct{} // closed when the VM has ended
	cause error         // why; valid once lost is closed

	mu       sync.Mutex // guards the fields below
	steps    []string
	pod      bundle.Pod
	booted   bool
	paused   bool
	oom      bool
	released bool
	pids     int // of processes on the host, so far
	onHost   []*Placeholder
	cpu      *specs.LinuxCPU
	files    map[string]*Files
}

var _ sandbox.Machine = (*Machine)(nil)

// NewMachine returns a machine that boots.
func NewMachine() *Machine {
	return &Machine{Agent: guesttest.New(guesttest.Options{}), lost: make(chan struct{}), files: make(map[string]*Files)}
}

// step records a step and returns its error.
func (m *Machine) step(ctx context.Context, name string) error {
	m.mu.Lock()
	m.steps = append(m.steps, name)
	on := m.OnStep
	m.mu.Unlock()
	if on == nil {
		return nil
	}
	return on(ctx, name)
}

// Steps are the steps so far.
func (m *Machine) Steps() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.steps)
}

// Pod is what the machine was booted for.
func (m *Machine) Pod() bundle.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pod
}

// Released reports whether everything was released.
func (m *Machine) Released() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.released
}

// Lose ends the VM as if by itself.
func (m *Machine) Lose() { m.lose(ErrLost) }

// lose ends the VM; the first cause counts.
func (m *Machine) lose(cause error) {
	m.mu.Lock()
	select {
	case <-m.lost:
		m.mu.Unlock()
		return
	default:
	}
	m.cause = cause
	close(m.lost)
	m.mu.Unlock()
	m.Agent.Lose(cause)
}

// LoseToOOM is Lose because the host was out of memory.
func (m *Machine) LoseToOOM() {
	m.mu.Lock()
	m.oom = true
	m.mu.Unlock()
	m.Lose()
}

// Boot implements [sandbox.Machine].
func (m *Machine) Boot(ctx context.Context, pod bundle.Pod, events client.Events) error {
	if err := m.step(ctx, "boot"); err != nil {
		return err
	}
	m.Agent.SetEvents(events)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.booted, m.pod = true, pod
	return ctx.Err()
}

// Guest implements [sandbox.Machine].
func (m *Machine) Guest() client.Guest { return m.Agent }

// Lost implements [sandbox.Machine].
func (m *Machine) Lost() <-chan struct{} { return m.lost }

// Err implements [sandbox.Machine].
func (m *Machine) Err() error {
	select {
	case <-m.lost:
		return m.cause
	default:
		return nil
	}
}

// Disconnect implements [sandbox.Machine].
func (m *Machine) Disconnect() { m.Agent.Lose(ErrLost) }

// Release implements [sandbox.Machine].
func (m *Machine) Release(ctx context.Context) error {
	err := m.step(ctx, "release")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.released = true
	return err
}

// PID implements [sandbox.Power].
func (m *Machine) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.booted {
		return 0
	}
	return VMMPID
}

// Pause implements [sandbox.Power].
func (m *Machine) Pause(ctx context.Context) error { return m.setPaused(ctx, "pause", true) }

// Resume implements [sandbox.Power].
func (m *Machine) Resume(ctx context.Context) error { return m.setPaused(ctx, "resume", false) }

// setPaused notes a pause before it happens, and a resume after it, as a real
// machine does.
func (m *Machine) setPaused(ctx context.Context, step string, paused bool) error {
	set := func(paused bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.paused = paused
	}
	before := m.Paused()
	set(true)
	err := m.step(ctx, step)
	if err != nil {
		paused = before
	}
	set(paused)
	return err
}

// Paused implements [sandbox.Power].
func (m *Machine) Paused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paused
}

// PowerOff implements [sandbox.Power].
func (m *Machine) PowerOff(ctx context.Context) { _ = m.step(ctx, "power off") }

// Kill implements [sandbox.Power].
func (m *Machine) Kill(ctx context.Context, cause error) {
	_ = m.step(ctx, "kill")
	m.lose(cause)
}

// Console implements [sandbox.Power].
func (m *Machine) Console() []string { return []string{"a line of the console"} }

// Dir implements [sandbox.Host].
func (m *Machine) Dir() string { return "/run/ccv2/test/pod" }

// Files implements [sandbox.Host].
func (m *Machine) Files(container string) (exposure.View, error) {
	if err := m.step(context.Background(), "files "+container); err != nil {
		return nil, err
	}
	f := &Files{container: container, machine: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[container] = f
	return f, nil
}

// FilesOf is what a container was exposed last; nil when it never was.
func (m *Machine) FilesOf(container string) *Files {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[container]
}

// RefreshNetwork implements [sandbox.Host].
func (m *Machine) RefreshNetwork(ctx context.Context) error { return m.step(ctx, "refresh network") }

// LimitCPU implements [sandbox.Host].
func (m *Machine) LimitCPU(_ context.Context, cpu *specs.LinuxCPU) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cpu = cpu
	return nil
}

// CPU is what LimitCPU got last.
func (m *Machine) CPU() *specs.LinuxCPU {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cpu
}

// OOMKilled implements [sandbox.Host].
func (m *Machine) OOMKilled() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.oom, nil
}

// Tree implements [exposure.View]. There is nothing to copy.
func (f *Files) Tree(string, bool) (*os.File, error) { return os.Open(os.DevNull) }

// Files is what one container was exposed.
type Files struct {
	container string
	machine   *Machine

	mu     sync.Mutex // guards the fields below
	rootfs string     // "mounts", or the directory
	binds  []share.Bind
	closed bool
}

// Rootfs implements [exposure.View].
func (f *Files) Rootfs([]mount.Mount) error { return f.RootfsDir("mounts") }

// RootfsDir implements [exposure.View].
func (f *Files) RootfsDir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rootfs = path
	return nil
}

// RootfsPath implements [exposure.View].
func (f *Files) RootfsPath() string { return f.container + "/rootfs" }

// Bind implements [exposure.View].
func (f *Files) Bind(b share.Bind) (path string, guard bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.binds = append(f.binds, b)
	return ".volumes/0", b.Access != share.WriteAll, nil
}

// Disks implements [exposure.View]. There are none.
func (f *Files) Disks(context.Context, *specs.Spec) ([]hyperstart.Disk, error) { return nil, nil }

// Close implements [exposure.View].
func (f *Files) Close() error {
	err := f.machine.step(context.Background(), "close files "+f.container)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return err
}

// Exposed is the root file system and the bind mounts, and whether they were
// released.
func (f *Files) Exposed() (rootfs string, binds []share.Bind, released bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rootfs, slices.Clone(f.binds), f.closed
}
