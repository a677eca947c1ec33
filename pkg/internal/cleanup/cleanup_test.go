package cleanup

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRun runs every step once, the last one first, and reports all errors.
func TestRun(t *testing.T) {
	var s Stack
	var ran []string
	one, three := errors.New("one"), errors.New("three")
	s.Add(func(context.Context) error { ran = append(ran, "a"); return one })
	s.Add(func(context.Context) error { ran = append(ran, "b"); return nil })
	s.Add(func(context.Context) error { ran = append(ran, "c"); return three })
	if err := s.Run(t.Context()); !errors.Is(err, one) || !errors.Is(err, three) {
		t.Errorf("got %v", err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if diff := cmp.Diff([]string{"c", "b", "a"}, ran); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
