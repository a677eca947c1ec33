package podvm

import (
	"context"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

const (
	// logBurst is how many messages of one source are logged within a logWindow. What comes beside
	// is counted: neither a guest nor a client of the socket must fill the host's log.
	logBurst  = 100
	logWindow = 10 * time.Second
)

// guestLog writes what a guest's agent logs to the log of the shim.
type guestLog struct{ boundedLog }

func newGuestLog(ctx context.Context, sandbox string) *guestLog {
	entry := log.G(ctx).WithField("sandbox", sandbox).WithField("source", "guest")
	return &guestLog{boundedLog{entry: entry, excess: func(e *log.Entry) { e.Warn("the guest logs too much") }}}
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
