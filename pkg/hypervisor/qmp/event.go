package qmp

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"
)

// Event is one asynchronous message of QEMU.
type Event struct {
	Name string          // e.g. "DEVICE_DELETED"
	Data json.RawMessage // nil when the event has none; not shared
	Time time.Time       // QEMU's clock; zero when it could not say
}

// Subscription is a bounded queue of events.
type Subscription struct {
	// C delivers the events in the order of their arrival. It is closed by
	// Close and when the connection ends; what is queued then can still be read.
	C <-chan Event

	client  *Client
	queue   chan Event
	match   func(Event) bool
	dropped atomic.Uint64
	once    sync.Once
}

// Subscribe returns a queue for at most size events (at least one) for which
// match is true; a nil match takes all. match is called by the connection's
// reader: it must not block and must not call the client. On a client that has
// ended C is closed already.
func (c *Client) Subscribe(size int, match func(Event) bool) *Subscription {
	queue := make(chan Event, max(size, 1))
	s := &Subscription{C: queue, client: c, queue: queue, match: match}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		close(queue)
		return s
	}
	c.subs[s] = struct{}{}
	return s
}

// Dropped is the number of events that were lost because the queue was full.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription. It is idempotent.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.client.mu.Lock()
		defer s.client.mu.Unlock()
		if _, ok := s.client.subs[s]; ok {
			delete(s.client.subs, s)
			close(s.queue)
		}
	})
}

// publish hands ev to all who want it and never waits. It holds mu, so that no
// queue is closed meanwhile.
func (c *Client) publish(ev Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subs {
		if s.match != nil && !s.match(ev) {
			continue
		}
		select {
		case s.queue <- ev:
		default:
			s.dropped.Add(1)
		}
	}
}
