package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// ErrSessionLost is the reason of a session that ended without an exit status.
var ErrSessionLost = errors.New("session lost")

// creditBatch is how many consumed bytes are worth a credit: often enough to
// keep the guest sending, seldom enough not to cost.
const creditBatch = hyperstart.CreditWindow / 4

// Output is one output stream of a session. It holds what the guest may send
// without further credit, so the session's reader never waits for a consumer.
// One goroutine may read it.
type Output struct {
	credit func(n int) // returns n bytes of credit

	mu       sync.Mutex // guards the fields below
	cond     *sync.Cond // on mu
	chunks   chunks     // all of one stream
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
	o.chunks.push(proxyproto.StreamStdout, p)
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
	for o.chunks.len() == 0 && !o.ended {
		o.cond.Wait()
	}
	if o.chunks.len() == 0 {
		return nil, false
	}
	return o.chunks.pop().buf, true
}

// release takes a chunk back and gives credit for it.
func (o *Output) release(chunk []byte) {
	n := len(chunk)
	putBuf(chunk)
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

// readFrames is the session's reader. It never waits for a consumer.
func (s *Session) readFrames(r *proxyproto.Reader) {
	defer close(s.read)
	err := s.readLoop(r)
	s.Stdout.end()
	s.Stderr.end()
	s.w.fail(fmt.Errorf("%w: %w", ErrSessionLost, err))
	select {
	case <-s.done:
	default:
		s.err = fmt.Errorf("%w: %w", ErrSessionLost, err)
		close(s.done)
	}
}

func (s *Session) readLoop(r *proxyproto.Reader) error {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return err
		}
		switch f.Type {
		case proxyproto.TypeStream:
			switch f.Stream() {
			case proxyproto.StreamStdout:
				s.Stdout.push(f.Payload)
			case proxyproto.StreamStderr:
				s.Stderr.push(f.Payload)
			case proxyproto.StreamStdin, proxyproto.StreamLog:
				return fmt.Errorf("proxy sent a frame of stream %s", f.Stream())
			}
		case proxyproto.TypeResponse:
			s.w.answered(f.Err())
		case proxyproto.TypeNotification:
			status, err := proxyproto.ParseProcessExited(f.Payload)
			if err != nil {
				return err
			}
			s.exited(status)
		case proxyproto.TypeCommand:
			return fmt.Errorf("proxy sent a %s", f)
		}
	}
}

// exited takes the exit status; the first one counts.
func (s *Session) exited(status uint8) {
	select {
	case <-s.done:
		return
	default:
	}
	s.status = status
	s.Stdout.end()
	s.Stderr.end()
	close(s.done)
}

// sessionWriter writes a session's frames and matches responses, which come in
// the order of the commands. The session's reader, which takes the responses,
// never waits for a write: the proxy may be writing as well, and would then
// wait for the reader.
type sessionWriter struct {
	wmu sync.Mutex // guards w, and so the order of frames; taken before mu
	w   *proxyproto.Writer

	mu      sync.Mutex   // guards the fields below
	waiting []chan error // one per command under way; nil for nobody
	err     error        // why no more answers come
}

// do writes frames that are not answered.
func (s *sessionWriter) do(fn func(*proxyproto.Writer) error) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return fn(s.w)
}

// post sends a command whose answer nobody waits for.
func (s *sessionWriter) post(cmd proxyproto.Command, payload any) error {
	return s.send(cmd, payload, nil)
}

// command sends a command and waits for its answer.
func (s *sessionWriter) command(ctx context.Context, cmd proxyproto.Command, payload any) error {
	answer := make(chan error, 1)
	if err := s.send(cmd, payload, answer); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("proxy: %s: %w", cmd, ctx.Err())
	}
}

func (s *sessionWriter) send(cmd proxyproto.Command, payload any, answer chan error) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.await(answer); err != nil {
		return err
	}
	if err := s.w.WriteCommand(cmd, payload); err != nil {
		return fmt.Errorf("proxy: send %s: %w", cmd, err)
	}
	return nil
}

// await notes that the next command is answered to answer.
func (s *sessionWriter) await(answer chan error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.waiting = append(s.waiting, answer)
	}
	return s.err
}

// answered takes the next response.
func (s *sessionWriter) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	if first := s.waiting[0]; first != nil {
		first <- err
	}
	s.waiting = s.waiting[1:]
}

// fail answers all commands that are under way.
func (s *sessionWriter) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	for _, answer := range s.waiting {
		if answer != nil {
			answer <- err
		}
	}
	s.waiting = nil
}
