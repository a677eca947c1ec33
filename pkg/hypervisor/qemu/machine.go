package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/internal/child"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
)

// machine is one running QEMU.
type machine struct {
	observer
	parker

	spec    hypervisor.Spec
	proc    *child.Process
	monitor *qmp.Client
	console *console.Console
	tty     net.Conn // of the console; set before it runs
	slots   *slotTable
	grown   grown
	done    chan struct{} // closed when the process is reaped and all goroutines have ended
	parked  atomic.Bool   // another process may take it over: its end is no business of this one

	mu       sync.Mutex // guards what follows
	timeline hypervisor.Timeline
}

var (
	_ hypervisor.VM      = (*machine)(nil)
	_ hypervisor.Plugger = (*machine)(nil)
	_ hypervisor.Saver   = (*machine)(nil)
	_ hypervisor.Resizer = (*machine)(nil)

	_ hypervisor.Observable = (*machine)(nil)
	_ hypervisor.Terminal   = (*machine)(nil)
)

// start runs QEMU with args and returns when the guest runs.
func start(ctx context.Context, spec hypervisor.Spec, args []string) (_ *machine, err error) {
	monitor, monitorPeer, err := socketpair("monitor")
	if err != nil {
		return nil, err
	}
	defer monitorPeer.Close()
	tty, ttyPeer, err := socketpair("console")
	if err != nil {
		return nil, errors.Join(err, monitor.Close())
	}
	defer ttyPeer.Close()
	removeSockets(spec) // what another QEMU may have left behind
	files := []*os.File{monitorPeer, ttyPeer}
	if spec.Snapshot != nil {
		files = append(files, spec.Snapshot.Memory)
	}
	proc, err := child.Start(child.Options{NetNS: spec.NetNS, Outlives: spec.Parked}, spec.Binary, args, files...)
	if err != nil {
		return nil, errors.Join(err, monitor.Close(), tty.Close())
	}
	// From here on the peers must be QEMU's alone, or its end goes unnoticed.
	_, _ = monitorPeer.Close(), ttyPeer.Close()

	m := newMachine(spec, proc)
	return watch(ctx, m, tty, func() error { return m.run(ctx, monitor) })
}

func newMachine(spec hypervisor.Spec, proc *child.Process) *machine {
	m := &machine{
		spec: spec, proc: proc, console: console.New(),
		slots: newSlotTable(hotplugSlots(spec)), done: make(chan struct{}),
	}
	m.observer, m.parker = observer{m}, parker{m}
	m.timeline.Exec = proc.Started()
	return m
}

// watch has a machine run, and watches it until it ends. When it does not run it is ended.
func watch(ctx context.Context, m *machine, tty net.Conn, run func() error) (*machine, error) {
	m.tty = tty
	consoleDone := make(chan struct{})
	go func() {
		defer close(consoleDone)
		defer tty.Close()
		_, _ = io.Copy(m.console, tty) // until QEMU's end is closed
	}()
	if err := run(); err != nil {
		if errors.Is(err, qmp.ErrClosed) { // it ends by itself: how it does tells why
			select {
			case <-m.proc.Done():
			case <-time.After(endGrace):
			}
		}
		_ = m.proc.Kill()
		<-m.proc.Done()
		<-consoleDone
		removeSockets(m.spec)
		return nil, m.explain(ctx, err)
	}
	events := m.monitor.Subscribe(eventQueue, isDeviceDeleted)
	go m.reap(events, consoleDone)
	return m, nil
}

// run brings a started process to a running guest.
func (m *machine) run(ctx context.Context, conn net.Conn) (err error) {
	if m.monitor, err = qmp.New(ctx, conn); err != nil {
		return fmt.Errorf("connect monitor: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.monitor.Close())
		}
	}()
	m.mark(func(t *hypervisor.Timeline) { t.Monitor = time.Now() })
	if snap := m.spec.Snapshot; snap != nil && snap.Devices != nil {
		if err := restore(ctx, m, snap); err != nil {
			return fmt.Errorf("restore guest: %w", err)
		}
	}
	if err := m.monitor.Execute(ctx, "cont", nil, nil); err != nil {
		return fmt.Errorf("run guest: %w", err)
	}
	m.mark(func(t *hypervisor.Timeline) { t.Running = time.Now() })
	return nil
}

// explain prefers the reason that QEMU itself gave over the broken connection
// that followed. The process has ended.
func (m *machine) explain(ctx context.Context, err error) error {
	exit := m.proc.Exit()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w (last qemu output: %q)", err, exit.Stderr)
	case errors.Is(err, qmp.ErrClosed) && exit.Killed():
		return fmt.Errorf("qemu %s: %w: %w", exit, hypervisor.ErrKilled, errdefs.ErrUnavailable)
	case errors.Is(err, qmp.ErrClosed):
		return fmt.Errorf("qemu %s: %w", exit, errdefs.ErrUnavailable)
	case exit.Stderr != "":
		return fmt.Errorf("%w (last qemu output: %q)", err, exit.Stderr)
	default:
		return err
	}
}

// endGrace is how long a QEMU that has closed its monitor before its guest ran may take to
// end: it has freed nothing yet that takes long.
const endGrace = time.Second

// eventQueue is enough for every slot's event at once.
const eventQueue = maxSlots

// exitGrace is how long QEMU may take to end after it closed its monitor. It
// frees the guest's memory meanwhile, some 100 ms per GiB.
const exitGrace = 10 * time.Second

// reap notes what the guest has released until the monitor closes, and then waits
// for all else.
func (m *machine) reap(events *qmp.Subscription, consoleDone <-chan struct{}) {
	for ev := range events.C {
		m.slots.deleted(ev)
	}
	if m.parked.Load() {
		<-consoleDone
		close(m.done)
		return
	}
	// The monitor closes first when QEMU ends by itself. A machine that lives
	// on without one cannot be managed, so it must not live on.
	timer := time.NewTimer(exitGrace)
	select {
	case <-m.proc.Done():
	case <-timer.C:
		_ = m.proc.Kill()
		<-m.proc.Done()
	}
	timer.Stop()
	_ = m.monitor.Close()
	<-consoleDone
	removeSockets(m.spec)
	close(m.done)
}

// PID implements [hypervisor.VM].
func (m *machine) PID() int { return m.proc.PID() }

// Done implements [hypervisor.VM].
func (m *machine) Done() <-chan struct{} { return m.done }

// Exit implements [hypervisor.VM].
func (m *machine) Exit() hypervisor.Exit {
	select {
	case <-m.done:
		return m.proc.Exit()
	default:
		return hypervisor.Exit{}
	}
}

// ConsoleTail implements [hypervisor.VM].
func (m *machine) ConsoleTail(n int) []string { return m.console.Tail(n) }

// Timeline implements [hypervisor.VM].
func (m *machine) Timeline() hypervisor.Timeline {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.timeline
}

func (m *machine) mark(set func(*hypervisor.Timeline)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.timeline)
}

// Dial implements [hypervisor.VM].
func (m *machine) Dial(ctx context.Context, port string) (net.Conn, error) {
	i := slices.Index(m.spec.Ports, port)
	if i < 0 {
		return nil, fmt.Errorf("dial port %s: there is no such port: %w", port, errdefs.ErrNotFound)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", portSocket(m.spec, i))
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT): // it listened before it ran
		return nil, fmt.Errorf("dial port %s: the vm has ended: %w", port, errdefs.ErrUnavailable)
	default:
		return nil, fmt.Errorf("dial port %s: %w", port, err)
	}
}

// Pause implements [hypervisor.VM].
func (m *machine) Pause(ctx context.Context) error {
	return execute(ctx, m, "pause vm", "stop", nil)
}

// Resume implements [hypervisor.VM].
func (m *machine) Resume(ctx context.Context) error {
	return execute(ctx, m, "resume vm", "cont", nil)
}

// Kill implements [hypervisor.VM].
func (m *machine) Kill(ctx context.Context) error {
	if m.parked.Load() {
		return nil // it is who adopts it that ends it
	}
	if err := m.proc.Kill(); err != nil {
		return fmt.Errorf("kill qemu %d: %w", m.proc.PID(), err)
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill qemu %d: still there after SIGKILL: %w", m.proc.PID(), ctx.Err())
	}
}

// execute runs a monitor command; op leads the error.
func execute(ctx context.Context, m *machine, op, command string, args any) error {
	return m.classify(op, m.monitor.Execute(ctx, command, args, nil))
}

// classify gives an error of the monitor its class.
func (m *machine) classify(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, qmp.ErrClosed):
		return fmt.Errorf("%s: the vm has ended: %w", op, errdefs.ErrUnavailable)
	default:
		return fmt.Errorf("%s: %w", op, err)
	}
}

// socketpair returns a stream connection and its other end for a child.
func socketpair(name string) (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s socketpair: %w", name, err)
	}
	ours := os.NewFile(uintptr(fds[0]), name)
	theirs := os.NewFile(uintptr(fds[1]), name)
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s socketpair: %w", name, err), theirs.Close())
	}
	return conn, theirs, nil
}

// removeSockets removes the ports' sockets: QEMU leaves them when it is killed.
func removeSockets(spec hypervisor.Spec) {
	for i := range spec.Ports {
		_ = os.Remove(portSocket(spec, i))
	}
	if spec.Parked {
		_ = errors.Join(os.Remove(monitorSocket(spec)), os.Remove(consoleSocket(spec)))
	}
}
