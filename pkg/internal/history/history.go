package history

import (
	"context"
	"sync"
)

// Log keeps the last entries that were added. [New] makes one.
type Log[T any] struct {
	limit int

	mu      sync.Mutex // guards what follows
	ring    []T        // next is the oldest once it is full
	next    int
	count   uint64        // of all entries ever
	changed chan struct{} // closed by the next Add; nil when nobody waits
}

// New returns a log of at most limit entries.
func New[T any](limit int) *Log[T] { return &Log[T]{limit: limit} }

// Add adds an entry, and forgets the oldest when there are too many. It never waits.
func (l *Log[T]) Add(entry T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if len(l.ring) < l.limit {
		l.ring = append(l.ring, entry)
	} else {
		l.ring[l.next] = entry
		l.next = (l.next + 1) % l.limit
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// From returns the entries from number n on, oldest first, of which the first ever has
// the number 0; lost is how many of them are forgotten. The next one is n + lost + the
// number of entries.
func (l *Log[T]) From(n uint64) (entries []T, lost uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.count - uint64(len(l.ring))
	if n < first {
		lost, n = first-n, first
	}
	if n >= l.count {
		return nil, lost
	}
	skip := int(n - first)
	entries = make([]T, 0, len(l.ring)-skip)
	for i := skip; i < len(l.ring); i++ {
		entries = append(entries, l.ring[(l.next+i)%len(l.ring)])
	}
	return entries, lost
}

// Count is how many entries were ever added: the number of the next one.
func (l *Log[T]) Count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Wait waits until there is an entry with number n.
func (l *Log[T]) Wait(ctx context.Context, n uint64) error {
	for {
		l.mu.Lock()
		if l.count > n {
			l.mu.Unlock()
			return nil
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
