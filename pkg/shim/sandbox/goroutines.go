package sandbox

import "sync"

// goroutines counts goroutines that are joined. Unlike a sync.WaitGroup it may
// be waited for while others are being started. Its zero value has none.
type goroutines struct {
	mu   sync.Mutex // guards the fields below
	n    int
	none chan struct{} // closed when n becomes 0; nil when nobody waits
}

// Go runs fn in a goroutine that Wait waits for.
func (g *goroutines) Go(fn func()) {
	g.add()
	go func() {
		defer g.end()
		fn()
	}()
}

func (g *goroutines) add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
}

func (g *goroutines) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
}

// idle is closed as soon as there are no goroutines.
func (g *goroutines) idle() <-chan struct{} {
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
