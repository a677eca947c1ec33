package podvm

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

const (
	// logBurst is how many messages of a guest are logged within a logWindow. What comes beside
	// is counted: a guest must not fill the host's log.
	logBurst  = 100
	logWindow = 10 * time.Second
)

// guestLog writes what a guest's agent logs to the log of the shim.
type guestLog struct {
	entry *log.Entry

	mu      sync.Mutex // guards what follows
	since   time.Time  // when the window has begun
	logged  int        // in it
	dropped int
}

func newGuestLog(ctx context.Context, sandbox string) *guestLog {
	return &guestLog{entry: log.G(ctx).WithField("sandbox", sandbox).WithField("source", "guest")}
}

// add logs a message: of a command that has failed as information, for who has asked says what it means; of one
// that has succeeded for debugging.
func (g *guestLog) add(m hyperstart.LogMessage) {
	if !g.allow(time.Now()) {
		return
	}
	if m.Command == "" {
		g.entry.WithField("text", printable.Line(m.Text, printable.MaxText)).Info("guest agent")
		return
	}
	entry := g.entry.WithField("activity", printable.Line(m.Activity, printable.MaxName)).WithField("command", printable.Line(m.Command, printable.MaxName)).
		WithField("took", m.Took.String())
	if m.Error == "" {
		entry.Debug("guest command")
		return
	}
	entry.WithField("error", printable.Line(m.Error, printable.MaxText)).Info("guest command failed")
}

// allow reports whether one more may be logged.
func (g *guestLog) allow(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.since) >= logWindow {
		if g.dropped > 0 {
			g.entry.WithField("dropped", g.dropped).Warn("the guest logs too much")
		}
		g.since, g.logged, g.dropped = now, 0, 0
	}
	if g.logged >= logBurst {
		g.dropped++
		return false
	}
	g.logged++
	return true
}
