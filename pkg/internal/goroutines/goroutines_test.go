package goroutines

import "testing"

// TestIdle is closed when the last goroutine has ended, also of those that were started
// while it is waited for.
func TestIdle(t *testing.T) {
	var g Group
	<-g.Idle() // none yet
	first, second := make(chan struct{}), make(chan struct{})
	g.Go(func() { <-first })
	idle := g.Idle()
	g.Go(func() { <-second })
	close(first)
	select {
	case <-idle:
		t.Error("idle while a goroutine runs")
	default:
	}
	close(second)
	<-idle
	<-g.Idle()
}
