package guestconn

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
)

// ErrClosed is the reason of a connection that Close ended.
var ErrClosed = errors.New("guest connection closed")

// Options say how to open a connection and where its messages go. The handlers
// run on the reader goroutines, in order, and must not call back into the Conn
// except for WriteTTY.
type Options struct {
	// Reattach is set when the guest said READY to an earlier connection: READY
	// comes once per boot, so a PING takes its place.
	Reattach bool
	// Dialect is used instead of asking the guest when it is not DialectUnknown.
	Dialect hyperstart.Dialect
	// TTY gets every tty message, also those with unknown sequence numbers; the
	// payload is valid until it returns. An error ends the connection. A handler
	// that blocks stalls all streams of the guest. Required.
	TTY func(seq uint64, payload []byte) error
	// Exited gets the ends of processes that come on the control port (hyperhq).
	Exited func(hyperstart.AsyncEvent)
	// Event gets the events of a ccv2 guest.
	Event func(hyperstart.EventMessage)
	// Tap, when set, sees all messages.
	Tap *wiretap.Tap
}

// Conn is a connection to the agent in one guest. It is safe for concurrent use.
type Conn struct {
	ctl, tty net.Conn
	opts     Options
	dialect  hyperstart.Dialect

	slot  chan struct{} // holds an element while a command is in flight
	ready chan struct{} // closed at READY
	done  chan struct{} // closed by fail
	wg    sync.WaitGroup

	out ttyWriter

	mu       sync.Mutex // guards the fields below
	pending  *pending   // the command in flight, nil when none is
	calls    calls
	gotReady bool
	err      error // why the connection ended; set before done is closed
	flow     flow
}

// ttyWriter writes to the tty port.
type ttyWriter struct {
	mu  sync.Mutex // serialises writes; guards buf
	buf []byte
}

// flow has bytes of the control port.
type flow struct {
	sent     uint64
	consumed uint64 // sum of all NEXT
}

// pending is a command that waits for its reply.
type pending struct {
	code   hyperstart.Code
	ticket uint32       // of the CALL that it belongs to, 0 for none
	reply  chan reply   // capacity 1, so that an abandoned command never blocks the reader
	open   atomic.Int32 // of writing and being answered, what is yet to happen
}

func newPending(code hyperstart.Code) *pending {
	p := &pending{code: code, reply: make(chan reply, 1)}
	p.open.Store(2)
	return p
}

type reply struct {
	payload []byte
	err     error
}

// Open takes ownership of the two ports, waits for the guest to be ready and asks for
// its version. ctx bounds the handshake. On error both ports are closed.
func Open(ctx context.Context, ctl, tty net.Conn, opts Options) (*Conn, error) {
	c := &Conn{
		ctl: ctl, tty: tty, opts: opts, dialect: opts.Dialect,
		slot:  make(chan struct{}, 1),
		ready: make(chan struct{}),
		done:  make(chan struct{}),
		calls: newCalls(),
		// A READY to a connection that does not wait for one is a guest that
		// has booted again, and has lost what this side knows of it.
		gotReady: opts.Reattach,
	}
	c.wg.Go(func() { c.fail(c.readCtl()) })
	c.wg.Go(func() { c.fail(c.readTTY()) })
	if err := c.handshake(ctx); err != nil {
		_ = c.Close() // the handshake's error says more
		return nil, err
	}
	return c, nil
}

func (c *Conn) handshake(ctx context.Context) error {
	if c.opts.Reattach {
		if _, err := c.roundTrip(ctx, hyperstart.Ping, nil); err != nil {
			return fmt.Errorf("reattach to guest: %w", err)
		}
	} else {
		select {
		case <-c.ready:
		case <-c.done:
			return fmt.Errorf("wait for guest: %w", c.Err())
		case <-ctx.Done():
			return fmt.Errorf("wait for guest: %w", ctx.Err())
		}
	}
	if c.dialect != hyperstart.DialectUnknown {
		return nil
	}
	payload, err := c.roundTrip(ctx, hyperstart.GetVersion, nil)
	var refused *hyperstart.CommandError
	if err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("ask guest for its version: %w", err)
	}
	var version uint32
	if err == nil {
		if len(payload) != 4 {
			return fmt.Errorf("ask guest for its version: answer of %d bytes, not 4", len(payload))
		}
		version = binary.BigEndian.Uint32(payload)
	}
	dialect, err := hyperstart.DialectOf(version, err == nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.dialect = dialect
	c.mu.Unlock()
	return nil
}

// Dialect is what the guest speaks. It does not change after Open.
func (c *Conn) Dialect() hyperstart.Dialect {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialect
}

// Done is closed when the connection has ended, for whatever reason.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and joins its goroutines. It must not be called
// from a handler.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	c.wg.Wait()
	return nil
}

// fail ends the connection with err; only the first call counts. Every command
// that still waits gets the error.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	waiting := c.calls.clear()
	if c.pending != nil {
		c.pending.reply <- reply{err: err}
		c.pending = nil
	}
	c.mu.Unlock()
	for _, p := range waiting {
		p.reply <- reply{err: err}
	}
	close(c.done)
	_ = c.ctl.Close() // unblocks the readers and any writer
	_ = c.tty.Close()
}

// WriteTTY sends one tty message. The payload is at most
// hyperstart.MaxTTYPayload bytes; an empty one closes the stdin of the process.
// It blocks while the guest does not read its port.
func (c *Conn) WriteTTY(seq uint64, payload []byte) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.buf = hyperstart.AppendTTY(c.out.buf[:0], seq, payload)
	c.opts.Tap.TTY(false, seq, payload)
	return c.writeTTYLocked()
}

// Grant gives the guest more credit on one stream.
func (c *Conn) Grant(credit hyperstart.Credit) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.buf = hyperstart.AppendCredit(c.out.buf[:0], credit)
	c.opts.Tap.TTY(false, hyperstart.CreditSeq, c.out.buf[hyperstart.TTYHeaderLen:])
	return c.writeTTYLocked()
}

func (c *Conn) writeTTYLocked() error {
	if _, err := c.tty.Write(c.out.buf); err != nil {
		if ended := c.Err(); ended != nil {
			err = ended
		}
		return fmt.Errorf("write to guest: %w", err)
	}
	return nil
}

// ttyReadBuffer holds a few small messages; large ones bypass it.
const ttyReadBuffer = 32 << 10

func (c *Conn) readTTY() error {
	r := hyperstart.NewTTYReader(bufio.NewReaderSize(c.tty, ttyReadBuffer))
	for {
		seq, payload, err := r.Read()
		if err != nil {
			return fmt.Errorf("tty port: %w", err)
		}
		c.opts.Tap.TTY(true, seq, payload)
		if err := c.opts.TTY(seq, payload); err != nil {
			return fmt.Errorf("tty port: %w", err)
		}
	}
}
