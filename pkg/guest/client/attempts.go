package client

import (
	"context"
	"fmt"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
)

// maxAbandoned is how many commands are awaited at once after their caller has
// gone. A ccv2 guest does not work on more than it.
const maxAbandoned = 64

// attempts runs commands that create something in the guest. A caller that gives up abandons its attempt: the guest
// carries it out in any case, so it is awaited in the background, and what it has created is undone. Until then its id is in use.
type attempts struct {
	life   context.Context //nolint:containedctx // of all commands, ended by close
	cancel context.CancelFunc

	mu        sync.Mutex // guards the fields below
	wg        sync.WaitGroup
	closed    bool
	abandoned map[string]chan struct{} // by id; closed when it is free again
}

func newAttempts() *attempts {
	a := &attempts{abandoned: make(map[string]chan struct{})}
	a.life, a.cancel = context.WithCancel(context.Background())
	return a
}

// attempt is one command that creates something.
type attempt struct {
	id   string // unique among what can be created
	name string // of the command
	run  func(context.Context) error
	undo func(context.Context)
}

// do runs an attempt until ctx ends.
func (a *attempts) do(ctx context.Context, t attempt) error {
	life, cancel := context.WithCancel(activity.Carry(a.life, ctx))
	answer := make(chan error, 1)
	if err := a.start(func() {
		defer cancel()
		answer <- t.run(life)
	}); err != nil {
		cancel()
		return err
	}
	select {
	case err := <-answer:
		if err != nil || ctx.Err() == nil {
			return err
		}
		answer <- nil // it succeeded too late
	case <-ctx.Done():
	}
	a.abandon(t, answer, cancel)
	return fmt.Errorf("%s: no answer from the guest: %w", t.name, ctx.Err())
}

// free waits until no earlier attempt of the same id is to be undone.
func (a *attempts) free(ctx context.Context, t attempt) error {
	for {
		a.mu.Lock()
		undone := a.abandoned[t.id]
		a.mu.Unlock()
		if undone == nil {
			return nil
		}
		select {
		case <-undone:
		case <-ctx.Done():
			return fmt.Errorf("%s: wait until an earlier attempt is undone: %w", t.name, ctx.Err())
		}
	}
}

// start runs fn in a goroutine that close joins.
func (a *attempts) start(fn func()) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return fmt.Errorf("guest is closed: %w", context.Canceled)
	}
	a.wg.Go(fn)
	return nil
}

// abandon undoes an attempt once it has succeeded. With too many of them the
// guest has stopped answering, and this one is given up.
func (a *attempts) abandon(t attempt, answer <-chan error, cancel context.CancelFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.abandoned) >= maxAbandoned {
		cancel()
		return
	}
	undone := make(chan struct{})
	a.abandoned[t.id] = undone
	a.wg.Go(func() {
		if err := <-answer; err == nil {
			t.undo(a.life)
		}
		a.mu.Lock()
		if a.abandoned[t.id] == undone {
			delete(a.abandoned, t.id)
		}
		a.mu.Unlock()
		close(undone)
	})
}

// close ends all attempts and joins their goroutines.
func (a *attempts) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}
