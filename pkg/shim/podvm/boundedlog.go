package podvm

import (
	"sync"
	"time"

	"github.com/containerd/log"
)

// boundedLog bounds what others write to the log of the shim.
type boundedLog struct {
	entry  *log.Entry
	excess func(*log.Entry) // says that some was dropped

	mu      sync.Mutex // guards what follows
	since   time.Time  // when the window has begun
	logged  int        // in it
	dropped int
}

// allow reports whether one more may be logged.
func (b *boundedLog) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) >= logWindow {
		if b.dropped > 0 {
			b.excess(b.entry.WithField("dropped", b.dropped))
		}
		b.since, b.logged, b.dropped = now, 0, 0
	}
	if b.logged >= logBurst {
		b.dropped++
		return false
	}
	b.logged++
	return true
}
