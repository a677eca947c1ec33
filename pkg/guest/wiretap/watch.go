package wiretap

import (
	"context"
	"slices"
	"sync"
)

// Bounds of what waits for one who watches.
const (
	maxQueued      = 1024
	maxQueuedBytes = 1 << 20
)

// Watch gets what passes a tap. The caller closes it.
type Watch struct {
	tap *Tap

	mu     sync.Mutex // guards what follows
	queue  []Message
	bytes  int           // of the queue
	lost   uint64        // since the last Next
	wake   chan struct{} // capacity 1
	closed bool
}

// Watch begins to watch.
func (t *Tap) Watch() *Watch {
	w := &Watch{tap: t, wake: make(chan struct{}, 1)}
	t.change(func(all []*Watch) []*Watch { return append(all, w) })
	return w
}

// Close ends it.
func (w *Watch) Close() {
	w.tap.change(func(all []*Watch) []*Watch {
		return slices.DeleteFunc(all, func(other *Watch) bool { return other == w })
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed, w.queue = true, nil
}

// change replaces the list of watches, which is never changed itself: it is read without a lock.
func (t *Tap) change(edit func([]*Watch) []*Watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Watch
	if old := t.watches.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = edit(all); len(all) == 0 {
		t.watches.Store(nil)
		return
	}
	t.watches.Store(&all)
}

// add queues a message, unless there are too many.
func (w *Watch) add(m Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return
	case len(w.queue) >= maxQueued, w.bytes+len(m.Raw) > maxQueuedBytes && len(w.queue) > 0:
		w.lost++
		return
	}
	w.queue = append(w.queue, m)
	w.bytes += len(m.Raw)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next waits for messages and returns all that there are, with the number of those that were lost after them.
func (w *Watch) Next(ctx context.Context) (queued []Message, lost uint64, err error) {
	for {
		w.mu.Lock()
		queued, lost = w.queue, w.lost
		w.queue, w.bytes, w.lost = nil, 0, 0
		w.mu.Unlock()
		if len(queued) > 0 {
			return queued, lost, nil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}
