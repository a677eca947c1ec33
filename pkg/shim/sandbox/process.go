package sandbox

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

const (
	// statusUnknown is the exit status when the truth died with the VM; never 0.
	statusUnknown = 255
	statusKilled  = 128 + killSignal
	killSignal    = 9
)

// Exit is how a process ended.
type Exit struct {
	Status uint32
	At     time.Time // zero when it has not ended
}

// Process is one process of a container: its first one, or an exec.
type Process struct {
	ID    string // exec id, "" for the first process
	stdio stdio.Config
	spec  *specs.Process // of an exec

	container *Container
	copied    chan struct{} // closed when all output is with containerd
	moved     atomic.Int64  // bytes of output given to containerd
	ending    chan struct{} // closed when the guest has told of the end, or cannot any more
	done      chan struct{} // closed when exit is final
	early     chan uint8    // capacity 1; exit status of a process whose output nobody takes

	mu      sync.Mutex // guards the fields below
	cond    *sync.Cond // on mu; signals every change of state
	state   ProcessState
	streams *stdio.Streams // nil before the start
	session *proxy.Session // nil before the start
	copying bool           // copied will be closed
	noStdin bool           // CloseIO came before the start
	exit    Exit
	killed  bool // SIGKILL was sent
	doomed  bool // mustEnd was called
	ended   int  // signal that ended it before an original guest knew of it
}

func newProcess(c *Container, id string, cfg stdio.Config, spec *specs.Process) *Process {
	p := &Process{ID: id, stdio: cfg, spec: spec, container: c, copied: make(chan struct{}), ending: make(chan struct{}), done: make(chan struct{}), early: make(chan uint8, 1)}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// guestID is the process's name in the guest.
func (p *Process) guestID() string {
	if p.ID == "" {
		return hyperstart.InitProcess
	}
	return "exec-" + p.ID // an exec may be called "init"
}

func (p *Process) String() string {
	if p.ID == "" {
		return "container " + p.container.ID
	}
	return fmt.Sprintf("process %s of container %s", p.ID, p.container.ID)
}

// Stdio is what containerd named when the process was made.
func (p *Process) Stdio() stdio.Config { return p.stdio }

// Exit is how the process ended; the zero value while it has not.
func (p *Process) Exit() Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// State is the state of an exec; see [Container.State] for the first process.
func (p *Process) State() ProcessState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Wait waits until the process has ended.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", p, ctx.Err())
	}
}

// open opens the streams on the host's side and a session on the guest's.
// release closes them.
func (p *Process) open(ctx context.Context) error {
	s := p.container.sandbox
	streams, err := stdio.Open(ctx, s.opts.Namespace, p.container.ID, p.stdio)
	if err != nil {
		return err
	}
	session, err := s.client.Connect(ctx)
	if err != nil {
		_ = streams.Close() // the first error says more
		return err
	}
	p.mu.Lock()
	p.streams, p.session = streams, session
	closed := p.noStdin
	p.mu.Unlock()
	if closed {
		return p.CloseStdin()
	}
	return nil
}

// ends returns both ends of the process's streams, nil before open.
func (p *Process) ends() (*stdio.Streams, *proxy.Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.streams, p.session
}

// startCopying moves the streams between containerd and the guest until they end.
func (p *Process) startCopying(ctx context.Context) {
	streams, session := p.ends()
	p.mu.Lock()
	p.copying = true
	p.mu.Unlock()
	var outputs sync.WaitGroup
	outputs.Go(func() { p.copyOutput(ctx, session.Stdout, streams.Stdout) })
	outputs.Go(func() { p.copyOutput(ctx, session.Stderr, streams.Stderr) })
	go func() {
		outputs.Wait()
		streams.CloseOutput() // clients wait for the end of the fifos before they delete
		close(p.copied)
	}()
	go p.copyStdin(ctx, streams, session)
}

func (p *Process) copyOutput(ctx context.Context, from *proxy.Output, to io.Writer) {
	if to == nil {
		from.Discard()
		return
	}
	if _, err := from.WriteTo(&countingWriter{w: to, n: &p.moved}); err != nil {
		log.G(ctx).WithError(err).WithField("process", p.String()).Warn("copy output")
		from.Discard() // nobody reads any more; the process must not notice
	}
}

func (p *Process) copyStdin(ctx context.Context, streams *stdio.Streams, session *proxy.Session) {
	if streams.Stdin != nil {
		if err := session.WriteStdin(ctx, streams.Stdin); err != nil {
			log.G(ctx).WithError(err).WithField("process", p.String()).Debug("copy stdin")
			return // the process or the stream has gone, there is nothing to close
		}
	}
	if err := session.CloseStdin(); err != nil {
		log.G(ctx).WithError(err).WithField("process", p.String()).Debug("close stdin")
	}
}

// countingWriter counts what its writer took.
type countingWriter struct {
	w io.Writer
	n *atomic.Int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// CloseStdin ends the stdin behind what clients have written. A client whose
// own stdin is empty asks for that before the process is started.
func (p *Process) CloseStdin() error {
	p.mu.Lock()
	p.noStdin = true
	streams := p.streams
	p.mu.Unlock()
	if streams == nil || streams.Stdin == nil {
		return nil
	}
	return streams.Stdin.Finish()
}

// Resize sets the size of the terminal in characters. 0 is ignored, as a
// client without a terminal of its own sends it.
func (p *Process) Resize(ctx context.Context, rows, columns uint32) error {
	_, session := p.ends()
	switch {
	case !p.stdio.Terminal:
		return fmt.Errorf("resize %s: it has no terminal: %w", p, errdefs.ErrFailedPrecondition)
	case session == nil:
		return fmt.Errorf("resize %s: not started: %w", p, errdefs.ErrFailedPrecondition)
	case rows == 0 || columns == 0:
		return nil
	}
	return fromGuest(session.Resize(ctx, int(rows), int(columns)))
}
