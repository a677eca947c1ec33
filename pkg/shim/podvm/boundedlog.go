package podvm

import (
	"sync"
	"time"

	"github.com/containerd/log"
)

// boundedLog bounds what others write to the log of the shim, in messages and in bytes.
type boundedLog struct {
	entry  *log.Entry
	excess func(*log.Entry) // says that some was dropped

	mu      sync.Mutex // guards what follows
	since   time.Time  // when the window has begun
	logged  int        // in it
	bytes   int        // of these
	dropped int
}

// allow reports whether one more may be logged, of a level and so many bytes. One that the level of the log hides
// does not count.
func (b *boundedLog) allow(now time.Time, level log.Level, bytes int) bool {
	if !b.entry.Logger.IsLevelEnabled(level) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) >= logWindow {
		if b.dropped > 0 {
			b.excess(b.entry.WithField("dropped", b.dropped))
		}
		b.since, b.logged, b.bytes, b.dropped = now, 0, 0, 0
	}
	if b.logged >= logBurst || b.bytes+bytes > logBytes {
		b.dropped++
		return false
	}
	b.logged++
	b.bytes += bytes
	return true
}
