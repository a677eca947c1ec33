package podvm

import (
	"context"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// clientLog writes what clients of the proxy say for the log, and for what they are cut off, to the
// log of the shim.
type clientLog struct{ boundedLog }

func newClientLog(ctx context.Context, sandbox string) *clientLog {
	entry := log.G(ctx).WithField("sandbox", sandbox)
	return &clientLog{boundedLog{entry: entry, excess: func(e *log.Entry) { e.Warn("clients of the proxy log too much") }}}
}

// add logs what a client says, at its level.
func (c *clientLog) add(e proxyproto.LogEntry) {
	if !c.allow(time.Now()) {
		return
	}
	entry := c.entry.WithField("source", string(e.Source))
	if e.ContainerID != "" {
		entry = entry.WithField("container", printable.Line(e.ContainerID, printable.MaxName))
	}
	level := log.InfoLevel
	switch e.Level {
	case proxyproto.LevelDebug:
		level = log.DebugLevel
	case proxyproto.LevelInfo:
	case proxyproto.LevelWarn:
		level = log.WarnLevel
	case proxyproto.LevelError:
		level = log.ErrorLevel
	}
	entry.Log(level, printable.Line(e.Msg, printable.MaxText))
}

// cutOff logs why a client was cut off.
func (c *clientLog) cutOff(err error) {
	if c.allow(time.Now()) {
		c.entry.WithError(printable.Error(err, printable.MaxText)).Warn("client of the proxy was cut off")
	}
}
