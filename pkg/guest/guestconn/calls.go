package guestconn

import (
	"errors"
	"fmt"
)

// errUnsolicited is a reply to no command.
var errUnsolicited = errors.New("guest sent a reply to no command")

const (
	// maxCalls bounds the commands that a ccv2 guest works on at a time.
	maxCalls = 256
	// maxAbandoned bounds the tickets that are kept of abandoned calls.
	maxAbandoned = 4096
)

// calls are the commands that are wrapped in CALL, by ticket. An abandoned call
// has no place among them; its ticket is kept, because the guest may
// still answer it. Conn.mu guards it.
type calls struct {
	last      uint32 // ticket
	live      map[uint32]*pending
	abandoned map[uint32]struct{}
	// forgotten is the largest ticket whose abandonment is not kept. What comes
	// for it and the ones before is dropped.
	forgotten uint32
}

func newCalls() calls {
	return calls{live: make(map[uint32]*pending), abandoned: make(map[uint32]struct{})}
}

// add gives p a ticket.
func (c *calls) add(p *pending) error {
	if len(c.live) >= maxCalls {
		return fmt.Errorf("send %s: the guest has not answered %d earlier commands", p.code, maxCalls)
	}
	c.last++
	p.ticket = c.last
	c.live[p.ticket] = p
	return nil
}

// remove drops a ticket for which no RESULT will come.
func (c *calls) remove(ticket uint32) {
	delete(c.live, ticket)
	delete(c.abandoned, ticket)
}

// abandon frees the place of a call for which a RESULT may still come.
func (c *calls) abandon(ticket uint32) {
	if c.live[ticket] == nil {
		return // answered or refused meanwhile
	}
	delete(c.live, ticket)
	if len(c.abandoned) >= maxAbandoned {
		for old := range c.abandoned {
			c.forgotten = max(c.forgotten, old)
		}
		clear(c.abandoned)
	}
	c.abandoned[ticket] = struct{}{}
}

// answer removes and returns the call that a RESULT belongs to. It is nil for an abandoned one.
func (c *calls) answer(ticket uint32) (*pending, error) {
	p := c.live[ticket]
	_, abandoned := c.abandoned[ticket]
	c.remove(ticket)
	if p == nil && !abandoned && ticket > c.forgotten {
		return nil, errUnsolicited
	}
	return p, nil
}

// clear drops all calls and returns those that are waited for.
func (c *calls) clear() map[uint32]*pending {
	live := c.live
	*c = newCalls()
	return live
}
