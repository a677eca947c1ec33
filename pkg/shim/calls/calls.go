package calls

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Bounds are the upper ends of the ranges that durations are counted in; there is one more
// range, of those that took longer. They suit what a shim does: an exec in milliseconds, the creation of a pod
// in seconds when its guest is emulated.
var Bounds = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Operation is what is known of the calls of one kind.
type Operation struct {
	Name string
	// Took has how many calls took up to each of [Bounds], and longer; none of them counts twice.
	Took  [len(Bounds) + 1]uint64
	Total time.Duration
	// Failed is how many have failed, by the class of the error.
	Failed map[string]uint64
}

// Counts are those of a shim. The zero value is ready.
type Counts struct {
	mu         sync.Mutex // guards what follows
	operations map[string]*Operation
}

// Add counts a call that has ended.
func (c *Counts) Add(name string, took time.Duration, err error) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.operations[name]
	if o == nil {
		if c.operations == nil {
			c.operations = make(map[string]*Operation)
		}
		o = &Operation{Name: name}
		c.operations[name] = o
	}
	i, _ := slices.BinarySearch(Bounds[:], took)
	o.Took[i]++
	o.Total += took
	if err != nil {
		if o.Failed == nil {
			o.Failed = make(map[string]uint64)
		}
		o.Failed[Class(err)]++
	}
}

// Operations are those that were called, in the order of their names.
func (c *Counts) Operations() []Operation {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Operation, 0, len(c.operations))
	for _, o := range c.operations {
		copied := *o
		copied.Failed = maps.Clone(o.Failed)
		all = append(all, copied)
	}
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Class names the class of an error, one of a fixed number.
func Class(err error) string {
	for _, c := range []struct {
		class error
		name  string
	}{
		{errdefs.ErrNotFound, "not_found"},
		{errdefs.ErrAlreadyExists, "already_exists"},
		{errdefs.ErrFailedPrecondition, "failed_precondition"},
		{errdefs.ErrInvalidArgument, "invalid_argument"},
		{errdefs.ErrNotImplemented, "unimplemented"},
		{errdefs.ErrUnavailable, "unavailable"},
		{errdefs.ErrResourceExhausted, "resource_exhausted"},
		{errdefs.ErrPermissionDenied, "permission_denied"},
		{errdefs.ErrInternal, "internal"},
	} {
		if errors.Is(err, c.class) {
			return c.name
		}
	}
	switch {
	case errdefs.IsCanceled(err):
		return "canceled"
	case errdefs.IsDeadlineExceeded(err):
		return "deadline_exceeded"
	}
	return "unknown"
}
