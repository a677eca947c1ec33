package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// GreetingTimeout bounds the wait for the greeting and for the end of the
// capability negotiation when the context of [New] has no earlier deadline.
// QEMU greets as soon as its machine is made, which takes well below a second.
const GreetingTimeout = 30 * time.Second

// Client is a negotiated connection. All methods are safe for concurrent use.
type Client struct {
	conn    net.Conn
	version Version
	writes  chan *call
	closing chan struct{}  // closed when the connection fails or is closed
	loops   sync.WaitGroup // the reader and the writer

	mu      sync.Mutex // guards what follows
	err     error      // why the connection ended; set before closing is closed
	nextID  uint64
	pending map[uint64]*call
	subs    map[*Subscription]struct{}
}

// call is one command on its way.
type call struct {
	id    uint64
	name  string
	line  []byte
	file  *os.File // passed along, owned by the call; may be nil
	reply chan reply
}

type reply struct {
	value json.RawMessage
	err   error
}

// New takes over conn, waits for QEMU's greeting and negotiates. ctx bounds
// that alone. On error conn is closed.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn:    conn,
		writes:  make(chan *call),
		closing: make(chan struct{}),
		pending: make(map[uint64]*call),
		subs:    make(map[*Subscription]struct{}),
	}
	ctx, cancel := context.WithTimeout(ctx, GreetingTimeout)
	defer cancel()
	lines := newLineReader(conn)
	if err := c.greet(ctx, lines); err != nil {
		return nil, errors.Join(fmt.Errorf("qmp greeting: %w", err), conn.Close())
	}
	c.loops.Go(func() { c.read(lines) })
	c.loops.Go(c.write)
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("qmp negotiation: %w", err), c.Close())
	}
	return c, nil
}

// greet reads the greeting, and gives up when ctx ends.
func (c *Client) greet(ctx context.Context, lines *lineReader) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // in the past: Read returns
	})
	m, err := lines.next()
	if !stop() {
		<-interrupted
		return ctx.Err()
	}
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: end of stream", ErrClosed)
	case err != nil:
		return err
	case m.Greeting == nil:
		return errors.New("the peer does not speak QMP: first message is no greeting")
	}
	q := m.Greeting.Version.QEMU
	c.version = Version{Major: q.Major, Minor: q.Minor, Micro: q.Micro, Package: m.Greeting.Version.Package}
	return nil
}

// Version returns what QEMU said in its greeting.
func (c *Client) Version() Version { return c.version }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.closing }

// Err says why the connection ended, wrapping [ErrClosed]; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection, fails all pending calls, closes all subscriptions
// and waits for the client's goroutines. It is idempotent.
func (c *Client) Close() error {
	err := c.fail(fmt.Errorf("%w by this side", ErrClosed))
	c.loops.Wait()
	return err
}

// fail ends the connection once; err becomes the cause for everyone.
func (c *Client) fail(err error) error {
	c.mu.Lock()
	if c.err != nil { // the first reason counts
		c.mu.Unlock()
		return nil //nolint:nilerr // err was told before
	}
	c.err = err
	for id, p := range c.pending {
		delete(c.pending, id)
		p.reply <- reply{err: err}
	}
	for s := range c.subs {
		delete(c.subs, s)
		close(s.queue)
	}
	close(c.closing)
	c.mu.Unlock()
	return c.conn.Close()
}

// read dispatches what QEMU sends until the connection ends.
func (c *Client) read(lines *lineReader) {
	for {
		m, err := lines.next()
		if err != nil {
			_ = c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
		switch {
		case m.Event != "":
			c.publish(Event{Name: m.Event, Data: m.Data, Time: m.Stamp.time()})
		case m.ID != nil:
			c.deliver(m)
		case m.Error != nil:
			// An error without an id answers a line that QEMU could not parse:
			// it is unknown which call waits for it.
			_ = c.fail(fmt.Errorf("%w: peer rejected a request: %s", ErrClosed, m.Error.Desc))
			return
		default:
			_ = c.fail(fmt.Errorf("%w: message is neither reply nor event", ErrClosed))
			return
		}
	}
}

// deliver hands a reply to its call. One without a call answers an abandoned command.
func (c *Client) deliver(m *message) {
	c.mu.Lock()
	p, ok := c.pending[*m.ID]
	delete(c.pending, *m.ID)
	c.mu.Unlock()
	if !ok {
		return
	}
	if m.Error != nil {
		p.reply <- reply{err: &Error{Command: p.name, Class: m.Error.Class, Desc: m.Error.Desc}}
		return
	}
	p.reply <- reply{value: m.Return}
}
