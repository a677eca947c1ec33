package guestconn

// MaxAbandoned is for tests that overstep it.
const MaxAbandoned = maxAbandoned

// Abandoned is the number of tickets of abandoned calls.
func (c *Conn) Abandoned() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls.abandoned)
}
