package sandbox

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/streams"
)

const (
	sigkill = int(unix.SIGKILL)
	// statusUnknown is the exit status when the truth was lost with the VM; never 0.
	statusUnknown = 255
	statusKilled  = 128 + uint32(sigkill)
)

// Exit is how a process ended.
type Exit struct {
	Status uint32
	At     time.Time // zero when it has not ended
}

// Process is one process of a container: its init process, or an exec process.
type Process struct {
	ID    string // exec id, "" for the init process
	stdio stdio.Config
	spec  *specs.Process // of an exec process

	container *Container
	io        *streams.Streams
	end       processEnd

	mu    sync.Mutex // guards the fields below
	cond  *sync.Cond // on mu; signals every change of state
	state ProcessState
	pid   int
}

func newProcess(c *Container, id string, cfg stdio.Config) *Process {
	p := &Process{ID: id, stdio: cfg, container: c, io: streams.New(), end: newProcessEnd()}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *Process) String() string {
	if p.ID == "" {
		return "container " + p.container.ID
	}
	return fmt.Sprintf("process %s of container %s", p.ID, p.container.ID)
}

// Moved is what has passed of a process's streams.
func Moved(p *Process) streams.Moved { return p.io.Moved() }

// Stdio is what containerd named when the process was created.
func (p *Process) Stdio() stdio.Config { return p.stdio }

// PID is that of the process on the host, which ends with it; 0 before there is one.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// State is the state of an exec process; see [Container.State] for the init process.
func (p *Process) State() ProcessState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// open opens the streams on the host's side and a session on the guest's.
func (p *Process) open(ctx context.Context) error {
	s := p.container.sandbox
	ends, err := stdio.Open(ctx, s.opts.Namespace, p.container.ID, p.stdio)
	if err != nil {
		return err
	}
	session, err := s.machine.Guest().OpenSession(ctx)
	if err != nil {
		_ = ends.Close() // the first error says more
		return err
	}
	return p.io.Open(ends, session)
}

// CloseStdin ends the stdin after what clients have written. A client whose own stdin is empty asks for that before the start.
func (p *Process) CloseStdin() error { return p.io.CloseStdin() }

// Resize sets the size of the terminal in characters; before the start it is the size to start with. 0 is ignored, as a
// client without a terminal of its own sends it. Where there is no terminal, or no more, the answers are those of runc's shim.
func (p *Process) Resize(ctx context.Context, rows, columns uint32) error {
	switch exited := p.State() >= ProcessExited; {
	case exited && p.ID != "":
		return fmt.Errorf("resize %s: it has exited: %w", p, errdefs.ErrFailedPrecondition)
	case exited, !p.stdio.Terminal, uint16(rows) == 0, uint16(columns) == 0:
		return nil
	}
	return p.io.Resize(ctx, uint16(rows), uint16(columns))
}

// awaitStarted waits until an exec process is not being started any more.
func (p *Process) awaitStarted(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.state == ProcessStarting {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for the start of %s: %w", p, err)
		}
		p.cond.Wait()
	}
	return nil
}
