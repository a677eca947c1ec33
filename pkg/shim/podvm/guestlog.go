package podvm

import (
	"context"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

const (
	// logBurst is how many messages of one source are logged within a logWindow, logBytes how long they are
	// together. What comes beside is counted: neither a guest nor a client of the socket must fill the host's log.
	logBurst  = 100
	logBytes  = 64 << 10
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
	activity, command := printable.Line(m.Activity, printable.MaxName), printable.Line(m.Command, printable.MaxName)
	text, failure := printable.Line(m.Text, printable.MaxText), printable.Line(m.Error, printable.MaxText)
	level := log.InfoLevel
	if m.Command != "" && m.Error == "" {
		level = log.DebugLevel
	}
	if !g.allow(time.Now(), level, len(activity)+len(command)+len(text)+len(failure)) {
		return
	}
	if m.Command == "" {
		g.entry.WithField("text", text).Info("guest agent")
		return
	}
	entry := g.entry.WithField("activity", activity).WithField("command", command).WithField("took", m.Took.String())
	if m.Error == "" {
		entry.Debug("guest command")
		return
	}
	entry.WithField("error", failure).Info("guest command failed")
}
