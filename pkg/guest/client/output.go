package client

import (
	"io"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/outqueue"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// creditBatch is how many consumed bytes are worth a credit: often enough to
// keep the guest sending, seldom enough not to cost.
const creditBatch = hyperstart.CreditWindow / 4

// Output is one output stream of a session. It holds what the guest may send
// without further credit, so the session's reader never waits for a consumer.
// One goroutine may read it.
type Output struct {
	credit func(n int) // returns n bytes of credit

	mu       sync.Mutex     // guards the fields below
	cond     *sync.Cond     // on mu
	chunks   outqueue.Queue // all of one stream
	ended    bool
	consumed int // not yet credited
}

func newOutput(credit func(int)) *Output {
	o := &Output{credit: credit}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *Output) push(p []byte) {
	o.mu.Lock()
	o.chunks.Push(proxyproto.StreamStdout, p)
	o.cond.Broadcast()
	o.mu.Unlock()
}

func (o *Output) end() {
	o.mu.Lock()
	o.ended = true
	o.cond.Broadcast()
	o.mu.Unlock()
}

// WriteTo copies the stream to w until it ends. It implements [io.WriterTo].
// After an error of w nothing more is read, and the process blocks once the
// window is full; Discard prevents that.
func (o *Output) WriteTo(w io.Writer) (total int64, err error) {
	for {
		chunk, ok := o.next()
		if !ok {
			return total, nil
		}
		n, err := w.Write(chunk)
		total += int64(n)
		o.release(chunk)
		if err != nil {
			return total, err
		}
	}
}

// Discard reads the stream to its end and drops it.
func (o *Output) Discard() { _, _ = o.WriteTo(io.Discard) } // io.Discard never fails

// next waits for the next chunk; ok is false at the end of the stream.
func (o *Output) next() (chunk []byte, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.chunks.Len() == 0 && !o.ended {
		o.cond.Wait()
	}
	if o.chunks.Len() == 0 {
		return nil, false
	}
	return o.chunks.Pop().Buf, true
}

// release takes a chunk back and gives credit for it.
func (o *Output) release(chunk []byte) {
	n := len(chunk)
	outqueue.Put(chunk)
	o.mu.Lock()
	o.consumed += n
	due := 0
	if o.consumed >= creditBatch && !o.ended {
		due, o.consumed = o.consumed, 0
	}
	o.mu.Unlock()
	if due > 0 {
		o.credit(due)
	}
}
