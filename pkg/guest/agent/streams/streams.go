package streams

import (
	"slices"
	"sync"

	runc "github.com/containerd/go-runc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Options name the streams of a process.
type Options struct {
	Stdio    uint64 // sequence number of stdin and stdout
	Stderr   uint64 // is not used with a terminal
	Terminal bool
	// Rows and Columns are the size of the terminal; 0 leaves it to the runtime.
	Rows, Columns uint16
}

// IO is the standard streams of one process.
type IO struct {
	port    *Port
	opts    Options
	pipes   *pipes
	in      *stdin
	outputs []*output

	input   sync.WaitGroup // the pump of in
	copying sync.WaitGroup // the pumps of outputs
	drained chan struct{}
}

// Open claims the sequence numbers of a process and makes its streams. The caller
// must call Abort, or Start and Close.
func (p *Port) Open(opts Options) (*IO, error) {
	if opts.Terminal {
		opts.Stderr = 0
	} else if opts.Stderr == 0 {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "a sequence number for stderr is needed without a terminal")
	}
	s := &IO{port: p, opts: opts, drained: make(chan struct{})}
	s.in = newStdin(opts.Terminal, func(n int) { p.grant(opts.Stdio, n) })
	out, errs, err := p.register(opts.Stdio, opts.Stderr, s.in)
	if err != nil {
		return nil, err
	}
	if s.pipes, err = newPipes(opts.Terminal, p.consolePath(opts.Stdio)); err != nil {
		p.unregister(opts.Stdio, opts.Stderr)
		return nil, err
	}
	s.outputs = []*output{{seq: opts.Stdio, credit: out, write: p.write, piece: p.piece()}}
	if errs != nil {
		s.outputs = append(s.outputs, &output{seq: opts.Stderr, credit: errs, write: p.write, piece: p.piece()})
	}
	return s, nil
}

// Stdio is the sequence number by which the host knows the process.
func (s *IO) Stdio() uint64 { return s.opts.Stdio }

// Pipes are the ends that the process gets, nil with a terminal.
func (s *IO) Pipes() runc.IO {
	if s.pipes.terminal {
		return nil
	}
	return s.pipes
}

// Console is the socket that the OCI runtime sends the terminal to, nil without
// one.
func (s *IO) Console() runc.ConsoleSocket {
	if s.pipes.console == nil {
		return nil
	}
	return s.pipes.console
}

// Attach receives the terminal after the OCI runtime has sent it. Without a
// terminal it does nothing.
func (s *IO) Attach() error {
	if err := s.pipes.attach(); err != nil {
		return err
	}
	if s.opts.Rows == 0 || s.opts.Columns == 0 {
		return nil
	}
	return s.Resize(s.opts.Rows, s.opts.Columns)
}

// Resize sets the size of the terminal, if there is one.
func (s *IO) Resize(rows, columns uint16) error { return s.pipes.resize(rows, columns) }

// Abort releases the streams of a process that was not started.
func (s *IO) Abort() { s.Close() }

// Start begins to copy. The process has its ends of the streams.
func (s *IO) Start() {
	s.outputs[0].file = s.pipes.out
	if len(s.outputs) > 1 {
		s.outputs[1].file = s.pipes.err
	}
	s.input.Go(func() {
		defer console.Guard()
		s.in.pump(s.pipes.in)
		// The end of the input is what the process sees as end of file. A
		// terminal's master serves the output as well and stays open.
		if !s.pipes.terminal {
			s.pipes.in.Close()
		}
	})
	for _, o := range s.outputs {
		s.copying.Go(func() { defer console.Guard(); o.pump() })
	}
	go func() {
		defer console.Guard()
		s.copying.Wait()
		close(s.drained)
	}()
}

// Drained is closed when the host has all output, or what is left was discarded.
func (s *IO) Drained() <-chan struct{} { return s.drained }

// Unsent reports whether there is output that the host has not got yet.
func (s *IO) Unsent() bool {
	return slices.ContainsFunc(s.outputs, func(o *output) bool { return o.sending.Load() || o.pending() > 0 })
}

// StopSoon bounds how long the outputs are read from a process that has ended,
// when somebody else keeps them open.
func (s *IO) StopSoon() {
	for _, o := range s.outputs {
		o.stopSoon()
	}
}

// Discard drops output that the host does not take.
func (s *IO) Discard() {
	for _, o := range s.outputs {
		o.credit.close()
	}
}

// Close releases the streams and their sequence numbers. After Start it is to be
// called when they are drained.
func (s *IO) Close() {
	s.in.close()
	s.port.unregister(s.opts.Stdio, s.opts.Stderr)
	s.pipes.close()
	s.input.Wait()
}

// SendExit sends the exit status of the process: a message without payload, then
// one with the status. Both need no credit.
func (s *IO) SendExit(status uint8) { s.port.sendExit(s.opts.Stdio, status) }
