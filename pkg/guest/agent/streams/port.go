package streams

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Port is the tty port, which all standard streams share. Its reader never waits
// for a process of a host that knows credits: input goes into queues that the credit window bounds.
type Port struct {
	rw   io.ReadWriter
	dir  string      // for console sockets
	fail func(error) // called when the port cannot be written to

	uncredited atomic.Bool // the host knows no credits

	wmu sync.Mutex // guards writes to rw

	mu      sync.Mutex // guards the maps
	inputs  map[uint64]*stdin
	outputs map[uint64]*credit
}

// NewPort returns the tty port on rw. Console sockets are made in dir. fail is
// called with the error of a write, after which no process can be served.
func NewPort(rw io.ReadWriter, dir string, fail func(error)) *Port {
	return &Port{rw: rw, dir: dir, fail: fail, inputs: map[uint64]*stdin{}, outputs: map[uint64]*credit{}}
}

// WithoutCredits is for a host that knows none: the outputs of processes that are opened from then on
// need none, no credit is sent, and the port waits for a process whose input is full.
func (p *Port) WithoutCredits() { p.uncredited.Store(true) }

// Uncredited reports whether the host knows no credits.
func (p *Port) Uncredited() bool { return p.uncredited.Load() }

// piece is how much output one message has at most.
func (p *Port) piece() int {
	if p.uncredited.Load() {
		return originalPiece
	}
	return largestPiece
}

// largestPiece makes a message of two writes to the port, whose driver takes 32 KiB at a time.
const largestPiece = hyperstart.MaxTTYPayload - hyperstart.TTYHeaderLen

// originalPiece is what all original hosts and shims take: messages of 10240 bytes.
const originalPiece = 10240 - hyperstart.TTYHeaderLen

// window is how much an output may send at first.
func (p *Port) window() int {
	if p.uncredited.Load() {
		return math.MaxInt
	}
	return hyperstart.CreditWindow
}

// consolePath is where the console socket of a process is.
func (p *Port) consolePath(seq uint64) string {
	return filepath.Join(p.dir, fmt.Sprintf("tty-%d.sock", seq))
}

// write sends whole messages. It reports false when the port has failed.
func (p *Port) write(b []byte) bool {
	p.wmu.Lock()
	_, err := p.rw.Write(b)
	p.wmu.Unlock()
	if err != nil {
		p.fail(fmt.Errorf("write tty message: %w", err))
	}
	return err == nil
}

// Serve takes messages from the host until the port fails.
func (p *Port) Serve() error {
	r := hyperstart.NewTTYReader(bufio.NewReaderSize(p.rw, hyperstart.MaxTTYPayload))
	for {
		seq, payload, err := r.Read()
		if err != nil {
			return fmt.Errorf("read tty message: %w", err)
		}
		if seq == hyperstart.CreditSeq {
			if err := hyperstart.ParseCredits(payload, p.granted); err != nil {
				console.Logf("%v", err)
			}
			continue
		}
		p.mu.Lock()
		in := p.inputs[seq]
		p.mu.Unlock()
		if in != nil && p.uncredited.Load() {
			in.awaitRoom(len(payload))
		}
		// Input for a process that has ended is not an error: it crossed the exit.
		if in != nil && !in.push(payload) {
			console.Logf("stdin of sequence %d: host exceeds the window, %d bytes dropped", seq, len(payload))
		}
	}
}

func (p *Port) granted(c hyperstart.Credit) {
	p.mu.Lock()
	out := p.outputs[c.Seq]
	p.mu.Unlock()
	if out != nil {
		out.add(int(c.Bytes))
	}
}

// register claims the sequence numbers of a process. stderr is 0 with a terminal.
func (p *Port) register(stdio, stderr uint64, in *stdin) (out, errs *credit, err error) {
	if stdio == hyperstart.CreditSeq || stdio == stderr {
		return nil, nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument,
			"sequence numbers %d and %d: must differ, and stdio cannot be 0", stdio, stderr)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range []uint64{stdio, stderr} {
		if _, used := p.outputs[seq]; used {
			return nil, nil, hyperstart.Errorf(hyperstart.ClassAlreadyExists, "sequence number %d is in use", seq)
		}
	}
	out = newCredit(p.window())
	p.outputs[stdio] = out
	p.inputs[stdio] = in
	if stderr != 0 {
		errs = newCredit(p.window())
		p.outputs[stderr] = errs
	}
	return out, errs, nil
}

func (p *Port) unregister(stdio, stderr uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inputs, stdio)
	delete(p.outputs, stdio)
	delete(p.outputs, stderr)
}

func (p *Port) sendExit(stdio uint64, status uint8) {
	b := hyperstart.AppendTTY(nil, stdio, nil)
	p.write(hyperstart.AppendTTY(b, stdio, []byte{status}))
}

func (p *Port) grant(seq uint64, n int) {
	if p.uncredited.Load() {
		return
	}
	p.write(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: seq, Bytes: uint32(n)}))
}
