package placeholder

import (
	"math/bits"
	"sync"
	"syscall"
)

// Pending are signals that are to be passed on, each once however often it came, as the
// kernel keeps them. Its zero value has none, and it is safe for concurrent use.
type Pending struct {
	mu   sync.Mutex // guards the fields below
	set  uint64     // bit n-1 is signal n
	busy bool       // somebody takes them
}

// Add adds a signal, and reports whether nobody takes them yet: the caller then does,
// with Next, until there are none.
func (p *Pending) Add(signal syscall.Signal) (idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle = !p.busy
	p.set |= 1 << (signal - 1)
	p.busy = true
	return idle
}

// Next takes the signal with the lowest number, 0 when there is none.
func (p *Pending) Next() syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy = p.set != 0; !p.busy {
		return 0
	}
	n := bits.TrailingZeros64(p.set)
	p.set &^= 1 << n
	return syscall.Signal(n + 1)
}
