package streams

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// Streams are the streams of one process. They are safe for concurrent use.
type Streams struct {
	copied chan struct{} // closed when all output is with containerd
	moved  counters

	mu      sync.Mutex     // guards the fields below
	streams *stdio.Streams // nil before Open
	guest   client.Session // nil before Open
	copying bool           // copied will be closed
	size    *specs.Box     // of the terminal, in characters; nil before Resize
	noStdin bool           // CloseStdin came before Open
}

// Moved is how many bytes of each stream have passed: output is given to containerd, input taken from it.
type Moved struct{ Stdin, Stdout, Stderr uint64 }

// counters count them.
type counters struct{ stdin, stdout, stderr atomic.Uint64 }

// Moved returns what has passed so far.
func (p *Streams) Moved() Moved {
	return Moved{Stdin: p.moved.stdin.Load(), Stdout: p.moved.stdout.Load(), Stderr: p.moved.stderr.Load()}
}

// output is how much of the output has passed.
func (c *counters) output() uint64 { return c.stdout.Load() + c.stderr.Load() }

// New returns the streams of a process that has none yet.
func New() *Streams { return &Streams{copied: make(chan struct{})} }

// Open takes over both ends; Close closes them.
func (p *Streams) Open(streams *stdio.Streams, session client.Session) error {
	p.mu.Lock()
	p.streams, p.guest = streams, session
	closed := p.noStdin
	p.mu.Unlock()
	if closed {
		return p.CloseStdin()
	}
	return nil
}

// Session is the guest's end, nil before Open.
func (p *Streams) Session() client.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guest
}

// Copy copies output until it ends, in goroutines that run starts and whose context
// ctx is. process is what log entries call it.
func (p *Streams) Copy(ctx context.Context, run func(func()), process string) {
	ctx = log.WithLogger(ctx, log.G(ctx).WithField("process", process))
	p.mu.Lock()
	streams, session := p.streams, p.guest
	p.copying = true
	p.mu.Unlock()
	var outputs sync.WaitGroup
	outputs.Go(func() { p.copyOutput(ctx, session.Stdout(), streams.Stdout, &p.moved.stdout) })
	outputs.Go(func() { p.copyOutput(ctx, session.Stderr(), streams.Stderr, &p.moved.stderr) })
	p.sendSize(ctx, session)
	run(func() {
		outputs.Wait()
		streams.CloseOutput() // clients wait for the end of the fifos before they delete
		close(p.copied)
	})
}

// Feed copies input as Copy does output. Clients are let in from then on, which
// is to be when the process starts: see [stdio.Stdin].
func (p *Streams) Feed(ctx context.Context, run func(func()), process string) {
	ctx = log.WithLogger(ctx, log.G(ctx).WithField("process", process))
	p.mu.Lock()
	streams, session := p.streams, p.guest
	p.mu.Unlock()
	run(func() { p.copyStdin(ctx, streams, session) })
}

func (p *Streams) copyOutput(ctx context.Context, from client.Stream, to io.Writer, n *atomic.Uint64) {
	if to == nil {
		from.Discard()
		return
	}
	if _, err := from.WriteTo(&countingWriter{w: to, n: n}); err != nil {
		log.G(ctx).WithError(err).Warn("copy output")
		from.Discard() // nothing reads any more; the process must not notice
	}
}

func (p *Streams) copyStdin(ctx context.Context, streams *stdio.Streams, session client.Session) {
	if streams.Stdin != nil {
		if err := session.WriteStdin(ctx, &countingReader{r: streams.Stdin, n: &p.moved.stdin}); err != nil {
			log.G(ctx).WithError(err).Debug("copy stdin")
			return // the process or the stream has gone, there is nothing to close
		}
	}
	if err := session.CloseStdin(); err != nil {
		log.G(ctx).WithError(err).Debug("close stdin")
	}
}

// countingWriter counts what its writer accepted.
type countingWriter struct {
	w io.Writer
	n *atomic.Uint64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(uint64(n))
	return n, err
}

// countingReader counts what its reader gave.
type countingReader struct {
	r io.Reader
	n *atomic.Uint64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(uint64(n))
	return n, err
}

// CloseStdin ends the stdin after what clients have written.
func (p *Streams) CloseStdin() error {
	p.mu.Lock()
	p.noStdin = true
	streams := p.streams
	p.mu.Unlock()
	if streams == nil || streams.Stdin == nil {
		return nil
	}
	return streams.Stdin.Finish()
}

// NeverStarted says that there is no process, and so nothing to wait for. Clients
// of containerd wait for the end of the output before they ask for the deletion, so
// that has to come now.
func (p *Streams) NeverStarted() {
	p.mu.Lock()
	p.copying = false
	streams := p.streams
	p.mu.Unlock()
	if streams != nil {
		streams.Hangup()
	}
}

const (
	// DrainStall is how long a reader of output may take nothing before the exit
	// is reported anyway. The output stays until Delete.
	DrainStall = 2 * time.Second
	// drainLimit bounds in bytes what a process that has ended may still have on
	// its way: buffers of pipes, of the agent, and one window at each hop. A guest
	// that keeps sending must not keep the exit from being reported.
	drainLimit = 16 << 20
)

// Drain waits until containerd has all output, as long as that makes progress.
func (p *Streams) Drain() {
	p.mu.Lock()
	copying := p.copying
	p.mu.Unlock()
	if !copying {
		return
	}
	timer := time.NewTicker(DrainStall)
	defer timer.Stop()
	last := p.moved.output()
	for limit := last + drainLimit; last < limit; {
		select {
		case <-p.copied:
			return
		case <-timer.C:
			now := p.moved.output()
			if now == last {
				return
			}
			last = now
		}
	}
}

// Close closes both ends. Output that is still under way is given some time. It
// is idempotent.
func (p *Streams) Close(ctx context.Context) {
	p.Drain()
	p.mu.Lock()
	streams, session := p.streams, p.guest
	p.mu.Unlock()
	if streams != nil {
		if err := streams.Close(); err != nil {
			log.G(ctx).WithError(err).Warn("close streams")
		}
	}
	if session != nil {
		_ = session.Close() // a lost connection is closed already
	}
}
