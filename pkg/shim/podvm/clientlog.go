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
	container, text := printable.Line(e.ContainerID, printable.MaxName), printable.Line(e.Msg, printable.MaxText)
	if !c.allow(time.Now(), level, len(container)+len(text)) {
		return
	}
	entry := c.entry.WithField("source", string(e.Source))
	if container != "" {
		entry = entry.WithField("container", container)
	}
	entry.Log(level, text)
}

// cutOff logs why a client was cut off.
func (c *clientLog) cutOff(err error) {
	err = printable.Error(err, printable.MaxText)
	if c.allow(time.Now(), log.WarnLevel, len(err.Error())) {
		c.entry.WithError(err).Warn("client of the proxy was cut off")
	}
}
