package placeholder

import (
	"math/bits"
	"sync"
	"syscall"
)

// PassOn returns what [Placeholder.Start] reports signals to: they are delivered one after
// the other, by a goroutine that run starts when there are some. One that comes again
// before it is delivered is one signal, as for the kernel.
func PassOn(run func(func()), deliver func(syscall.Signal)) (signalled func(syscall.Signal)) {
	var p pending
	return func(signal syscall.Signal) {
		if !p.add(signal) {
			return
		}
		run(func() {
			for next := p.next(); next != 0; next = p.next() {
				deliver(next)
			}
		})
	}
}

// pending are signals that are to be delivered.
type pending struct {
	mu   sync.Mutex // guards the fields below
	set  uint64     // bit n-1 is signal n
	busy bool       // somebody takes them
}

// add adds a signal, and reports whether nobody takes them yet.
func (p *pending) add(signal syscall.Signal) (idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle = !p.busy
	p.set |= 1 << (signal - 1)
	p.busy = true
	return idle
}

// next takes the signal with the lowest number, 0 when there is none.
func (p *pending) next() syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy = p.set != 0; !p.busy {
		return 0
	}
	n := bits.TrailingZeros64(p.set)
	p.set &^= 1 << n
	return syscall.Signal(n + 1)
}
