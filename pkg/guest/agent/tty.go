package agent

import (
	"bufio"
	"fmt"
	"io"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// tty is the port that all standard streams share. Its reader never waits for
// a process: input goes into queues that the credit window bounds.
type tty struct {
	rw io.ReadWriter

	wmu sync.Mutex // guards writes to rw

	mu      sync.Mutex // guards the maps
	inputs  map[uint64]*stdin
	outputs map[uint64]*credit
}

func newTTY(rw io.ReadWriter) *tty {
	return &tty{rw: rw, inputs: map[uint64]*stdin{}, outputs: map[uint64]*credit{}}
}

// write sends whole messages.
func (t *tty) write(b []byte) error {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if _, err := t.rw.Write(b); err != nil {
		return fmt.Errorf("write tty message: %w", err)
	}
	return nil
}

// serve takes messages from the host until the port fails.
func (t *tty) serve() error {
	r := hyperstart.NewTTYReader(bufio.NewReaderSize(t.rw, hyperstart.MaxTTYPayload))
	for {
		seq, payload, err := r.Read()
		if err != nil {
			return fmt.Errorf("read tty message: %w", err)
		}
		if seq == hyperstart.CreditSeq {
			if err := hyperstart.ParseCredits(payload, t.granted); err != nil {
				console.Logf("%v", err)
			}
			continue
		}
		t.mu.Lock()
		in := t.inputs[seq]
		t.mu.Unlock()
		// Input for a process that has gone is no error: it crossed the exit.
		if in != nil && !in.push(payload) {
			console.Logf("stdin of sequence %d: host exceeds the window, %d bytes dropped", seq, len(payload))
		}
	}
}

func (t *tty) granted(c hyperstart.Credit) {
	t.mu.Lock()
	out := t.outputs[c.Seq]
	t.mu.Unlock()
	if out != nil {
		out.add(int(c.Bytes))
	}
}

// register claims the sequence numbers of a process. stderr is 0 when it has
// none of its own.
func (t *tty) register(stdio, stderr uint64, in *stdin) (out, errs *credit, err error) {
	if stdio == hyperstart.CreditSeq || stdio == stderr {
		return nil, nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "sequence numbers %d and %d: must differ, and stdio cannot be 0", stdio, stderr)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range []uint64{stdio, stderr} {
		if _, used := t.outputs[seq]; used {
			return nil, nil, hyperstart.Errorf(hyperstart.ClassAlreadyExists, "sequence number %d is in use", seq)
		}
	}
	out = newCredit(hyperstart.CreditWindow)
	t.outputs[stdio] = out
	t.inputs[stdio] = in
	if stderr != 0 {
		errs = newCredit(hyperstart.CreditWindow)
		t.outputs[stderr] = errs
	}
	return out, errs, nil
}

func (t *tty) unregister(stdio, stderr uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.inputs, stdio)
	delete(t.outputs, stdio)
	delete(t.outputs, stderr)
}

// sendExit sends the end of a process: a message without payload, then one
// with the status. Both need no credit.
func (t *tty) sendExit(stdio uint64, status uint8) error {
	b := hyperstart.AppendTTY(nil, stdio, nil)
	return t.write(hyperstart.AppendTTY(b, stdio, []byte{status}))
}

func (t *tty) grant(seq uint64, n int) error {
	return t.write(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: seq, Bytes: uint32(n)}))
}
