package goroutines

import "sync"

// Group counts goroutines that are joined. Its zero value has none, and it is safe for
// concurrent use.
type Group struct {
	mu   sync.Mutex // guards the fields below
	n    int
	none chan struct{} // closed when n becomes 0; nil when nobody waits
}

// Go runs fn in a goroutine of the group.
func (g *Group) Go(fn func()) {
	g.Add()
	go func() {
		defer g.Done()
		fn()
	}()
}

// Add counts one more, until Done.
func (g *Group) Add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
}

// Done counts one less.
func (g *Group) Done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
}

// Idle is closed as soon as there are no goroutines.
func (g *Group) Idle() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if g.none == nil {
		g.none = make(chan struct{})
	}
	return g.none
}
