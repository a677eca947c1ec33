package sandbox

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// undoStack has what is to be done to give back what was taken, the last thing
// first.
type undoStack struct {
	mu    sync.Mutex // guards steps
	steps []func(context.Context) error
}

func (u *undoStack) add(step func(context.Context) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.steps = append(u.steps, step)
}

// run does all steps, whatever fails, and forgets them.
func (u *undoStack) run(ctx context.Context) error {
	u.mu.Lock()
	steps := u.steps
	u.steps = nil
	u.mu.Unlock()
	var errs []error
	for _, step := range slices.Backward(steps) {
		errs = append(errs, step(ctx))
	}
	return errors.Join(errs...)
}
