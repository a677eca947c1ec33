package client

import "testing"

// TestCompatTransitions tries every pair of states of a container.
func TestCompatTransitions(t *testing.T) {
	allowed := map[[2]compatState]bool{
		{compatCreated, compatKilled}: true, {compatCreated, compatStarting}: true, {compatStarting, compatStarted}: true,
	}
	for from := compatCreated; from <= compatStarted; from++ {
		for to := compatCreated; to <= compatStarted; to++ {
			c := &compatContainer{state: from}
			err := c.to(to)
			if ok := allowed[[2]compatState{from, to}]; ok != (err == nil) || ok != (c.state == to && from != to) {
				t.Errorf("%d to %d: %v, now %d", from, to, err, c.state)
			}
		}
	}
}
