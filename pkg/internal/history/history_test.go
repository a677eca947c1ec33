package history_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
)

func TestFrom(t *testing.T) {
	l := history.New[int](3)
	if got, lost := l.From(0); len(got) != 0 || lost != 0 {
		t.Errorf("empty: %v, lost %d", got, lost)
	}
	for i := range 5 {
		l.Add(i)
	}
	for _, tt := range []struct {
		from uint64
		want []int
		lost uint64
	}{
		{0, []int{2, 3, 4}, 2},
		{1, []int{2, 3, 4}, 1},
		{2, []int{2, 3, 4}, 0},
		{4, []int{4}, 0},
		{5, nil, 0},
		{9, nil, 0},
	} {
		if got, lost := l.From(tt.from); !slices.Equal(got, tt.want) || lost != tt.lost {
			t.Errorf("from %d: %v, lost %d", tt.from, got, lost)
		}
	}
}

// TestFollow: readers that follow get each entry once, or learn what they have lost.
func TestFollow(t *testing.T) {
	l := history.New[int](8)
	const entries, readers = 1000, 4
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			next, sum := uint64(0), uint64(0)
			for next < entries {
				if err := l.Wait(t.Context(), next); err != nil {
					t.Error(err)
					return
				}
				got, lost := l.From(next)
				for i, n := range got {
					if uint64(n) != next+lost+uint64(i) {
						t.Errorf("entry %d has number %d", n, next+lost+uint64(i))
					}
				}
				sum += lost + uint64(len(got))
				next += lost + uint64(len(got))
			}
			if sum != entries {
				t.Errorf("%d entries", sum)
			}
		})
	}
	for i := range entries {
		l.Add(i)
	}
	wg.Wait()
}

func TestWaitEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := history.New[int](1).Wait(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
