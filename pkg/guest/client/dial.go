package client

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Server is the proxy in this process; pkg/guest/proxy has one.
type Server interface {
	// RegisterConn registers a VM by its two ports, which become the server's,
	// and waits until the guest is ready.
	RegisterConn(ctx context.Context, vm string, ctl, tty net.Conn, event func(hyperstart.EventMessage), lost func(error)) error
	// Dialect is what the guest of a registered VM speaks.
	Dialect(vm string) (hyperstart.Dialect, error)
	// Pipe returns a connection to the server.
	Pipe() (net.Conn, error)
}

// Options are what a [Guest] is connected with.
type Options struct {
	Server Server
	VM     string // id of the VM, which is the pod's
	// Ctl and TTY are connections to the guest's two ports. [Dial] closes them
	// on error, and the server when it is closed.
	Ctl, TTY net.Conn
	Events   Events
	// CallTimeout bounds each command after StartPod; 0 for no bound. What comes
	// before, and StopPod, is bounded by its context alone.
	CallTimeout time.Duration
	// Gate, when set, is asked before each command after StartPod other than
	// StopPod; its error is the command's. It is not asked for what goes through
	// a session. It must not block.
	Gate func() error
	// Warn, when set, gets what no error reports: settings that the guest cannot
	// have, and what could not be undone in it.
	Warn func(message string)
}

// Dial waits until the guest is ready and returns the client for what it
// speaks. The caller closes the server, then the guest.
func Dial(ctx context.Context, o Options) (Guest, error) {
	if err := o.Server.RegisterConn(ctx, o.VM, o.Ctl, o.TTY, o.Events.handle, o.Events.lost); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // the end of the connection is what came of it
		}
		return nil, err
	}
	dialect, err := o.Server.Dialect(o.VM)
	if err != nil {
		return nil, err
	}
	c := newCaller(o, dialect)
	if dialect == hyperstart.DialectCCv2 {
		return newNative(c), nil
	}
	return newCompat(c), nil
}

func (e Events) lost(err error) {
	if e.Lost != nil {
		e.Lost(err)
	}
}

// handle passes on an event of the guest.
func (e Events) handle(m hyperstart.EventMessage) {
	switch m.Kind {
	case hyperstart.EventOOM:
		if e.OOM != nil {
			e.OOM(m.Container)
		}
	case hyperstart.EventExited:
		if execID, ok := execIDOf(m.Process); ok && e.Exited != nil {
			e.Exited(m.Container, execID, m.Status)
		}
	case hyperstart.EventDNS:
		if m.DNS != nil && e.DNS != nil {
			e.DNS(*m.DNS)
		}
	case hyperstart.EventLog: // the proxy takes it
	}
}

// execPrefix keeps exec ids apart from other ids of processes: an exec may be called "init".
const execPrefix = "exec-"

// processIDOf is the guest's name for a process, "" for the init process.
func processIDOf(execID string) string {
	if execID == "" {
		return hyperstart.InitProcess
	}
	return execPrefix + execID
}

// execIDOf is the reverse of processIDOf; ok is false for the id of something
// else, such as a forwarded connection.
func execIDOf(processID string) (execID string, ok bool) {
	if processID == hyperstart.InitProcess {
		return "", true
	}
	if execID, ok = strings.CutPrefix(processID, execPrefix); !ok {
		return "", false
	}
	return execID, execID != ""
}
