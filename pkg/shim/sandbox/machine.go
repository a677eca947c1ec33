package sandbox

import (
	"context"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/exposure"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
)

// Machine is the VM of a sandbox with all that it needs on the host. The command
// makes one of a podvm.Machine; sandboxtest has one in memory.
type Machine interface {
	Power
	Host

	// Boot acquires what the pod needs and boots the VM. It is called once.
	Boot(ctx context.Context, pod bundle.Pod, events client.Events) error
	// Guest is the guest of a machine that has booted.
	Guest() client.Guest
	// Lost is closed when the VM has ended by itself; Err says why.
	Lost() <-chan struct{}
	Err() error
	// Disconnect ends the connection to the guest, and all sessions with it.
	Disconnect()
	// Release releases what Boot has acquired, whatever came of it.
	Release(ctx context.Context) error
}

// Power is the VM as such.
type Power interface {
	PID() int // of the VMM; 0 before there is one
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Paused() bool
	PowerOff(ctx context.Context) // the guest's orderly end
	// Kill ends the VMM. The VM is lost for that cause, unless it is already.
	Kill(ctx context.Context, cause error)
	Console() []string // the guest's last words, for a log entry
}

// Host is what a container needs of the host. The VM has booted.
type Host interface {
	Dir() string // path of the state directory
	// Files makes the container's view of the share.
	Files(container string) (exposure.View, error)
	// Placeholder makes what stands for a container on the host. It closes the files
	// of c.
	Placeholder(c placeholder.Container) (Placeholder, error)
	// RefreshNetwork brings the guest's network up to date.
	RefreshNetwork(ctx context.Context) error
	// LimitCPU bounds what runs on the host for a container that is no pod's.
	LimitCPU(ctx context.Context, cpu *specs.LinuxCPU) error
	// OOMKilled reports whether the host killed a process for want of memory.
	OOMKilled() (bool, error)
}

// Placeholder stands for a container on the host; a [placeholder.Placeholder] is one.
type Placeholder interface {
	Start(name string, id placeholder.Identity, signalled func(syscall.Signal)) (pid int, err error)
	End(name string)
	Mirror(list []placeholder.Mirrored) []int
	Close()
}
