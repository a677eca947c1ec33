package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

// Driver makes VMs of one kind.
type Driver interface {
	// Start boots a VM. ctx bounds the start alone, not the VM's life. On
	// error nothing is left: no process, no socket.
	Start(ctx context.Context, spec Spec) (VM, error)
	// Probe reports what the VMM binary can do.
	Probe(ctx context.Context, binary string) (Capabilities, error)
}

// VM is one running virtual machine: what every kind has. What only some can do
// is an interface of its own, like [Plugger]. All methods are safe for concurrent
// use.
type VM interface {
	// PID is the process id of the VMM on the host; it stays valid until Done
	// is closed.
	PID() int
	// Done is closed when the VMM process has ended and was reaped.
	Done() <-chan struct{}
	// Exit says how the VMM ended. Its result is final once Done is closed,
	// and the zero value before.
	Exit() Exit
	// ConsoleTail returns up to n last lines of the guest's console, oldest first.
	ConsoleTail(n int) []string
	// Timeline returns the phases of the start so far.
	Timeline() Timeline

	// Dial connects to one of the ports of the spec, whether or not the guest has
	// opened it yet. A port has one connection at a time. An unknown name is
	// errdefs.ErrNotFound.
	Dial(ctx context.Context, port string) (net.Conn, error)

	// Pause stops the vCPUs, Resume continues them. Both are idempotent.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// Kill ends the VMM at once and waits until it is reaped. It is idempotent
	// and returns an error only when the process does not go away.
	Kill(ctx context.Context) error
}

// Plugger is a VM that devices can be plugged into while it runs.
type Plugger interface {
	// Plug adds a device and returns when the VMM has it; the guest may need some
	// more time to see it.
	Plug(ctx context.Context, dev Device) error
	// Unplug removes the device with the given id and returns when the guest
	// has released it. An unknown id is errdefs.ErrNotFound.
	Unplug(ctx context.Context, id string) error
}

// Saver is a VM whose state can be saved, to start others from it.
type Saver interface {
	// Save stops the vCPUs and returns the state of all devices, some 350 KiB, which
	// belongs to what Snapshot.Memory has from then on. Afterwards the VM can only be
	// killed. Without Spec.Snapshot it is errdefs.ErrFailedPrecondition.
	Save(ctx context.Context) ([]byte, error)
}

// Resizer is a VM that can become larger while it runs.
type Resizer interface {
	// Resize gives the VM vCPUs and memory, up to Spec.Max, and returns when the VMM has
	// them: the guest has to bring them online. Memory comes in pieces of 2 MiB, the last of
	// which may be more than what is asked for. What is smaller than now is
	// errdefs.ErrNotImplemented. After an error the VM may have a part of it.
	Resize(ctx context.Context, to Size) error
	// Grown is what was added since the start.
	Grown() Size
}

// Parker is a VM that can be left to another process. It was started with Spec.Parked.
type Parker interface {
	// Park stops the vCPUs and lets go of the VM, which waits for an [Adopter]. Done is
	// closed when this process has nothing to do with it any more. After an error the VM is
	// still this process's.
	Park(ctx context.Context) error
}

// Adopter is a driver that takes over VMs which other processes have parked.
type Adopter interface {
	// Adopt takes over a VM from its Dir, where it was parked, and starts its vCPUs. On
	// error the VM has ended.
	Adopt(ctx context.Context, spec Spec, process hostproc.Process) (VM, error)
}

// Adopted is a VM that may not be a child of this process.
type Adopted interface {
	// Adopted reports whether another process has started it: it is in that one's cgroup,
	// and has no network namespace but its own.
	Adopted() bool
}

// Observable is a VM that can be looked at while it runs. None of it changes the VM.
type Observable interface {
	// Console is what the guest has written to its console.
	Console() *history.Log[ConsoleLine]
	// Devices are the ids of those that are plugged.
	Devices() []string
	// Version is that of the VMM.
	Version() string
	// Status is what the VMM says of the vCPUs, such as "running".
	Status(ctx context.Context) (string, error)
	// Inspect returns all that the VMM says of its parts, as text.
	Inspect(ctx context.Context) ([]byte, error)
	// Disks are the counters of the disks that there are.
	Disks(ctx context.Context) ([]DiskStats, error)
}

// Terminal is a VM whose console can be typed on.
type Terminal interface {
	// Type gives the guest's console input. What a guest does not read the VMM keeps, some of it; then it is
	// errdefs.ErrUnavailable.
	Type(input []byte) error
	// Watch has what the guest writes, as it does: harmless for a terminal, and bounded. It begins with the line that is
	// being written; from is the number of the first piece. stop ends it.
	Watch() (pieces *history.Log[string], from uint64, begin string, stop func())
}

// DiskStats is what a guest has done with a disk.
type DiskStats struct {
	ID                  string // of the device
	ReadBytes, Reads    uint64
	WrittenBytes        uint64
	Writes, Flushes     uint64
	ReadTime, WriteTime time.Duration // in all
	Failed              uint64        // of reads, writes and flushes
}

// ConsoleLine is a line of the console, printable.
type ConsoleLine struct {
	Time int64 // nanoseconds since 1970, when it was complete
	Text string
}

// PluggerOf returns the VM's ability to plug devices. The methods of one that has
// none return errdefs.ErrNotImplemented.
func PluggerOf(vm VM) Plugger {
	if p, ok := vm.(Plugger); ok {
		return p
	}
	return noPlugger{}
}

type noPlugger struct{}

// Plug implements [Plugger].
func (noPlugger) Plug(_ context.Context, dev Device) error {
	return fmt.Errorf("plug %s: nothing can be plugged into this kind of vm: %w", dev.DeviceID(), errdefs.ErrNotImplemented)
}

// Unplug implements [Plugger].
func (noPlugger) Unplug(_ context.Context, id string) error {
	return fmt.Errorf("unplug %s: nothing can be plugged into this kind of vm: %w", id, errdefs.ErrNotImplemented)
}

// ErrKilled is the cause of a start that failed because somebody killed the VMM.
var ErrKilled = errors.New("it was killed")

// ErrNotResized is the cause when a VM that runs could not be made larger.
var ErrNotResized = errors.New("it could not be made larger")

// Exit says how a VMM process ended.
type Exit struct {
	Code   int // exit code, or 0 when killed by a signal
	Signal int // signal number, or 0
	// Unknown is set where nobody can say how: another process was its parent.
	Unknown bool
	Stderr  string // last lines of the VMM's own error output
}

// Killed reports whether somebody killed it, which says nothing of what it did.
func (e Exit) Killed() bool { return e.Signal == int(syscall.SIGKILL) }

// String says the same in one line, to follow the name of the program.
func (e Exit) String() string {
	how := fmt.Sprintf("exited with code %d", e.Code)
	switch {
	case e.Unknown:
		how = "ended (how is not known: another process has started it)"
	case e.Signal != 0:
		how = "died of signal " + syscall.Signal(e.Signal).String()
	}
	if e.Stderr != "" {
		how += ": " + printable.Line(strings.ReplaceAll(e.Stderr, "\n", "; "), printable.MaxText)
	}
	return how
}

// Capabilities is the result of a probe.
type Capabilities struct {
	Version  string // e.g. "7.2.22"
	Machines []string
	Seccomp  bool // the -sandbox option exists
	VirtioFS bool // vhost-user-fs-pci exists
	Virtio9P bool // virtio-9p-pci exists
}

// Timeline has the instants of a start; a zero time has not been reached.
type Timeline struct {
	Exec    time.Time // the VMM process was started
	Monitor time.Time // the monitor answered
	Running time.Time // the vCPUs run
}
