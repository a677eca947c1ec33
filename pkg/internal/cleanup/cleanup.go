package cleanup

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Stack has the steps that release what was acquired. Its zero value is empty.
// It is safe for concurrent use.
type Stack struct {
	mu    sync.Mutex // guards steps
	steps []func(context.Context) error
}

// Add adds a step, which runs before all those that were added earlier.
func (s *Stack) Add(step func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step)
}

// Run runs all steps, whatever fails, and removes them. Its error has those of
// all steps.
func (s *Stack) Run(ctx context.Context) error {
	s.mu.Lock()
	steps := s.steps
	s.steps = nil
	s.mu.Unlock()
	var errs []error
	for _, step := range slices.Backward(steps) {
		errs = append(errs, step(ctx))
	}
	return errors.Join(errs...)
}
