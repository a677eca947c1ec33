package streams

import "sync"

// credit is how many bytes may still be sent on one stream.
type credit struct {
	mu     sync.Mutex
	cond   *sync.Cond
	bytes  int
	closed bool
}

func newCredit(n int) *credit {
	c := &credit{bytes: n}
	c.cond = sync.NewCond(&c.mu)
	return c
}

// take waits for credit and takes up to n bytes of it. It returns 0 after close.
func (c *credit) take(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.bytes <= 0 && !c.closed {
		c.cond.Wait()
	}
	if c.closed {
		return 0
	}
	got := min(n, c.bytes)
	c.bytes -= got
	return got
}

func (c *credit) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += n
	c.cond.Broadcast()
}

// close ends all waits; what is not sent by then is lost.
func (c *credit) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.cond.Broadcast()
}
