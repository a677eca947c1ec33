package client

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// compatState is how far the guest is with a container.
type compatState uint8

const (
	compatCreated  compatState = iota // the guest does not know of it
	compatKilled                      // it was killed before the guest knew of it
	compatStarting                    // the command that starts it is under way
	compatStarted                     // that has ended
)

// compatNext are the transitions of a container in an original guest.
var compatNext = map[compatState][]compatState{
	compatCreated:  {compatKilled, compatStarting},
	compatKilled:   {},
	compatStarting: {compatStarted},
	compatStarted:  {},
}

// to moves the state. The caller holds the lock that guards it.
func (c *compatContainer) to(next compatState) error {
	if !slices.Contains(compatNext[c.state], next) {
		return fmt.Errorf("container %s is not created, or was started or killed before: %w", c.request.ID, errdefs.ErrFailedPrecondition)
	}
	c.state = next
	return nil
}
