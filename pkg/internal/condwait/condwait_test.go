package condwait_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/condwait"
)

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		cond := sync.NewCond(&mu)
		value := 0
		ctx, cancel := context.WithCancel(t.Context())
		wait := func(want int) <-chan error {
			done := make(chan error, 1)
			go func() {
				mu.Lock()
				defer mu.Unlock()
				done <- condwait.Until(ctx, cond, func() bool { return value == want })
			}()
			return done
		}
		one, two := wait(1), wait(2)
		synctest.Wait()
		mu.Lock()
		value = 1
		cond.Broadcast()
		mu.Unlock()
		if err := <-one; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-two; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if err := <-wait(1); err != nil { // what holds already needs no context
			t.Error(err)
		}
	})
}
