package streams

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDrainEndsWithOutputThatDoesNot: the exit is reported, however much a guest
// sends after it.
func TestDrainEndsWithOutputThatDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		p.copying = true
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(DrainStall / 2):
					p.moved.stdout.Add(1 << 20)
				}
			}
		}()
		begin := time.Now()
		p.Drain()
		close(stop)
		if took := time.Since(begin); took < 4*DrainStall || took > 20*DrainStall {
			t.Errorf("gave up after %s", took)
		}
	})
}
